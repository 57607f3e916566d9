/*
 * hv_priv.h - struct hv and what the engine's files share (private to hv/).
 */
#ifndef FRAMESHIFT_HV_PRIV_H
#define FRAMESHIFT_HV_PRIV_H

#include "backend.h"
#include "hv.h"
#include "mover.h"
#include "plan.h"

struct hv {
    struct hv_config config;            /* strings copied */
    struct hv_backend *be;
    char *map_file, *state_dir;
    volatile int interrupted;
};

/* As hv_open(), over a backend that is open already (tests, drills); hv_close() closes it. */
fs_status_t hv_open_backend(const struct hv_config *config, struct hv_backend *be, struct hv **out) FS_MUST_CHECK;
const char *hv_state_dir(const struct hv *hv);
const struct mover_ops *hv_mover_ops(enum hv_mover m);      /* NULL where none */

/* ---- survey.c: what the machine looks like now ---- */

#define SURVEY_CHUNK 16384u             /* frames read at a time; a multiple of a superpage */

struct survey {
    struct hv_host host;
    struct hv_topology topology;
    struct hv_domain *domains;
    size_t domain_count;
    struct mfn_range_set ranges;        /* of the target, RAM only */
    char note[256];                     /* what of the target was cut away; "" if nothing */
    uint64_t unowned[HV_NODES_MAX];     /* in the range, by node */
    struct plan_cost cost;
};
fs_status_t survey_target(struct hv *hv, const char *target, struct survey *out, struct fs_error *err) FS_MUST_CHECK;
fs_status_t survey_plan(struct hv *hv, struct survey *s, const struct hv_evacuate_options *o, struct hv_plan *out,
                        struct fs_error *err) FS_MUST_CHECK;
void survey_free(struct survey *s);
const struct hv_domain *survey_domain(const struct survey *s, uint16_t domid);

/* Call fn for the frames of a range set, SURVEY_CHUNK at a time, ascending; chunks begin at multiples of a superpage
 * wherever the range does. */
typedef fs_status_t (*survey_fn)(void *arg, mfn_t start, const struct hv_frame *frames, size_t count, struct fs_error *err);
fs_status_t survey_frames(struct hv_backend *be, const struct mfn_range_set *ranges, survey_fn fn, void *arg,
                          struct fs_error *err) FS_MUST_CHECK;

/* ---- evict.c: local save and restore of one domain ---- */
fs_status_t evict_domain(const struct mover_ctx *ctx, const char *dir, struct hv_domain_report *r, struct fs_error *err) FS_MUST_CHECK;
fs_status_t evict_recover(const struct mover_ctx *ctx, size_t first, size_t last, struct hv_recover_report *out,
                          struct fs_error *err) FS_MUST_CHECK;

#endif
