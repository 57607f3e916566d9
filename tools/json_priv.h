/*
 * json_priv.h - what json.c and json_show.c share: objects under construction.
 *
 * Contract: a member function that gets NULL for a value, or runs out of memory, marks
 * the object failed; object_end() then answers NULL, and json_write_line() false.
 */
#ifndef FRAMESHIFT_TOOLS_JSON_PRIV_H
#define FRAMESHIFT_TOOLS_JSON_PRIV_H

#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>
#include "hv.h"

struct object {
    json_t *j;
    bool failed;
};

void object_begin(struct object *o);
void object_begin_array(struct object *o);
json_t *object_end(struct object *o);
void object_put(struct object *o, const char *key, json_t *value);         /* takes value */
void object_append(struct object *array, json_t *value);                   /* takes value */

void put_number(struct object *o, const char *key, uint64_t n);
void put_bool(struct object *o, const char *key, bool b);
void put_string(struct object *o, const char *key, const char *s, size_t max_bytes);  /* NULL: null */
#define PUT_FIELD(o, key, field) put_string(o, key, field, sizeof(field))
void put_status(struct object *o, fs_status_t status);                     /* "status" and "exit_code" */
void put_error(struct object *o, const char *text);                        /* "error": text or null */

json_t *json_number(uint64_t n);
json_t *json_domid(uint16_t domid);
json_t *json_shrinks(const struct hv_shrink_report *list, size_t count);     /* json_show.c */
json_t *json_uuid(const uint8_t uuid[16]);
json_t *json_ranges(const struct mfn_range_set *set);
json_t *json_phases(const struct hv_phase *phases, size_t count);

void json_begin_line(struct object *o, const char *type);
bool json_write_line(FILE *f, struct object *o);                           /* ends o */
char *json_text(json_t *j);                                                /* takes j; malloc'd, or NULL */
bool json_flush(FILE *f);

#endif
