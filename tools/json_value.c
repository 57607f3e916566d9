/*
 * json_value.c - strings, numbers and lines of JSON that always parse.
 *
 * Owns: how a member of each kind is spelled, and how a line is written.
 * Invariants:
 *  I1 whatever bytes a string holds, what is written is valid UTF-8: invalid sequences
 *     become U+FFFD (controls are escaped by the library);
 *  I2 "unknown" of hv.h (all ones) becomes null, and no number above 2^63 - 1 is
 *     written: JSON readers keep integers in 64 signed bits or in a double;
 *  I3 a failed allocation is sticky in struct object, so that only the end looks; a
 *     line whose object failed is not begun.
 * Cost: O(bytes).
 */
#include "json_priv.h"

#include <stdlib.h>
#include <string.h>
#include "text.h"

/* I1. NULL where memory is out; the setters then say so. */
static json_t *clean_string(const char *s, size_t max)
{
    static const char replacement[3] = { '\xef', '\xbf', '\xbd' };        /* U+FFFD */
    size_t length = strnlen(s, max), at = 0;
    char *out = malloc(sizeof(replacement) * length + 1);

    if (!out) {
        return NULL;
    }
    for (size_t i = 0; i < length;) {
        uint32_t code;
        size_t used = text_utf8(s + i, length - i, &code);
        if (used == 0) {
            memcpy(out + at, replacement, sizeof(replacement));
            at += sizeof(replacement);
            i++;
        } else {
            memcpy(out + at, s + i, used);
            at += used;
            i += used;
        }
    }
    json_t *j = json_stringn(out, at);
    free(out);
    return j;
}

void object_begin(struct object *o)
{
    o->j = json_object();
    o->failed = !o->j;
}

void object_begin_array(struct object *o)
{
    o->j = json_array();
    o->failed = !o->j;
}

void object_put(struct object *o, const char *key, json_t *value)
{
    /* The library takes value, also where it fails; a NULL value or a NULL object fails it. */
    if (json_object_set_new(o->j, key, value) != 0) {
        o->failed = true;
    }
}

/* The value of a finished part; NULL fails the whole in object_put(). */
json_t *object_end(struct object *o)
{
    if (o->failed) {
        json_decref(o->j);
        return NULL;
    }
    return o->j;
}

json_t *json_number(uint64_t n)
{
    return n > INT64_MAX ? json_null() : json_integer((json_int_t)n);      /* I2 */
}

void put_number(struct object *o, const char *key, uint64_t n) { object_put(o, key, json_number(n)); }
void put_bool(struct object *o, const char *key, bool b) { object_put(o, key, json_boolean(b)); }
void put_string(struct object *o, const char *key, const char *s, size_t max)
{
    object_put(o, key, s ? clean_string(s, max) : json_null());
}

void put_status(struct object *o, fs_status_t status)
{
    put_string(o, "status", fs_status_name(status), SIZE_MAX);
    put_number(o, "exit_code", (uint64_t)fs_status_exit_code(status));
}

void put_error(struct object *o, const char *text)
{
    put_string(o, "error", text && *text ? text : NULL, sizeof(((struct fs_error *)0)->text));
}

void object_append(struct object *array, json_t *value)
{
    /* The library takes value, also where it fails; a NULL value fails it. */
    if (json_array_append_new(array->j, value) != 0) {
        array->failed = true;
    }
}

json_t *json_ranges(const struct mfn_range_set *set)
{
    struct object all;

    object_begin_array(&all);
    for (size_t i = 0; i < set->count; i++) {
        struct object r;
        object_begin(&r);
        put_number(&r, "start", set->ranges[i].start.n);
        put_number(&r, "end", set->ranges[i].end.n);
        object_append(&all, object_end(&r));
    }
    return object_end(&all);
}

json_t *json_phases(const struct hv_phase *phases, size_t count)
{
    struct object all;

    object_begin(&all);
    for (size_t i = 0; i < count && i < HV_PHASES_MAX; i++) {
        char name[3 * sizeof(phases[i].name) + 1];
        struct object p;
        object_begin(&p);
        put_number(&p, "ns", phases[i].ns);
        put_number(&p, "count", phases[i].count);
        text_clean(name, sizeof(name), phases[i].name, sizeof(phases[i].name), 0);
        object_put(&all, name, object_end(&p));
    }
    return object_end(&all);
}

json_t *json_domid(uint16_t domid)
{
    return domid == FS_DOMID_NONE ? json_null() : json_integer(domid);
}

json_t *json_uuid(const uint8_t uuid[16])
{
    char s[37];
    size_t at = 0;

    for (int i = 0; i < 16; i++) {
        at += (size_t)snprintf(s + at, sizeof(s) - at, i == 4 || i == 6 || i == 8 || i == 10 ? "-%02x" : "%02x", uuid[i]);
    }
    return json_string(s);
}

bool json_flush(FILE *f)
{
    return fflush(f) == 0 && !ferror(f);
}

char *json_text(json_t *j)
{
    /* Whole in memory before any of it is written: a dump that fails half-way must not leave half a line. */
    char *text = j ? json_dumps(j, JSON_COMPACT) : NULL;

    json_decref(j);
    return text;
}

bool json_write_line(FILE *f, struct object *o)
{
    char *text = json_text(object_end(o));
    bool ok = text && fputs(text, f) != EOF && fputc('\n', f) != EOF;

    free(text);
    return json_flush(f) && ok;
}

void json_begin_line(struct object *o, const char *type)
{
    object_begin(o);
    put_string(o, "type", type, SIZE_MAX);
}

