/*
 * topology_priv.h - what the sources of a topology share.
 *
 * Owns: the functions by which topology_smbios.c and mapfile.c fill a struct
 * hv_topology that topology.c began and will finish.
 */
#ifndef FRAMESHIFT_HV_TOPOLOGY_PRIV_H
#define FRAMESHIFT_HV_TOPOLOGY_PRIV_H

#include "smbios.h"
#include "topology.h"

/* RAM that a table leaves without a DIMM: less than the smallest DIMM and the smallest hole below 4 GiB, more than the frames
 * that firmware's rounding loses. */
#define TOPOLOGY_SLACK_PAGES 4096u

/* post: t->ram is a copy, nothing else is set. */
fs_status_t topology_begin(struct hv_topology *t, const struct mfn_range_set *ram) FS_MUST_CHECK;
/* A zeroed DIMM in a set of its own, at the end; NULL where memory ran out.  Earlier pointers are void. */
struct hv_dimm *topology_add_dimm(struct hv_topology *t, const char *name, const char *bank);
/* Every DIMM of b's set joins a's. */
void topology_merge_sets(struct hv_topology *t, uint32_t a, uint32_t b);
/* Give every member of a set the union of its members' ranges, cut to RAM. */
fs_status_t topology_share_ranges(struct hv_topology *t) FS_MUST_CHECK;
/* RAM of no DIMM. */
fs_status_t topology_leftover(const struct hv_topology *t, struct mfn_range_set *out) FS_MUST_CHECK;
/* pre: ranges are shared, sets disjoint.  Adds UNNAMED for what is left, sorts, numbers the sets, makes names unique, finds nodes. */
fs_status_t topology_finish(struct hv_topology *t) FS_MUST_CHECK;
/* Removes every DIMM. */
void topology_clear_dimms(struct hv_topology *t);
FS_PRINTF(2, 3) void topology_note(struct hv_topology *t, const char *fmt, ...);

/* "START-END", both hexadecimal, 0x or not.  False where it is anything else. */
bool topology_parse_frames(const char *words, uint64_t *start, uint64_t *end);

/* Fills t->dimms from the tables; post: ranges are shared, sets disjoint and cover RAM but for TOPOLOGY_SLACK_PAGES.
 * Where the tables cannot be believed: FS_OK, no DIMM, and why. */
fs_status_t topology_smbios(struct hv_topology *t, const struct smbios_memory *m, char *why, size_t why_bytes) FS_MUST_CHECK;

#endif
