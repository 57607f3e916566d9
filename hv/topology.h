/*
 * topology.h - which machine frames lie on which DIMM.
 *
 * Owns: the pure functions that turn firmware tables or a map file into a
 * struct hv_topology, and a user's words into ranges.  The bytes are hostile.
 * post, of both constructors, on FS_OK: every frame of ram is in exactly one
 * interleave set; DIMMs of one set have equal ranges; out->note tells what was
 * lacking or contradicted.  On failure *out is empty.  doc/TOPOLOGY.md has the
 * rules by which tables are believed.
 */
#ifndef FRAMESHIFT_HV_TOPOLOGY_H
#define FRAMESHIFT_HV_TOPOLOGY_H

#include "backend.h"
#include "hv.h"

/* smbios and srat may be NULL where their length is 0.  Fails with FS_NO_MEMORY only; with no table that can be believed,
 * all RAM is one entry. */
fs_status_t topology_from_tables(const uint8_t *smbios, size_t smbios_bytes, const uint8_t *srat, size_t srat_bytes,
                                 const struct mfn_range_set *ram, const struct hv_host *host, struct hv_topology *out,
                                 struct fs_error *err) FS_MUST_CHECK;

/* name is the file's, for words.  FS_BAD_INPUT names the line and what is wrong with it. */
fs_status_t topology_from_map(const char *text, size_t bytes, const char *name, const struct mfn_range_set *ram,
                              const struct hv_host *host, struct hv_topology *out, struct fs_error *err) FS_MUST_CHECK;

/* Learn from the SRAT where the nodes lie, and each DIMM's node from that.  For a topology from a map file; one from tables has
 * it already.  Where the SRAT cannot be believed, what the map said stays. */
fs_status_t topology_add_nodes(struct hv_topology *t, const uint8_t *srat, size_t srat_bytes, const struct hv_host *host,
                               struct fs_error *err) FS_MUST_CHECK;

/* The frames that a user's target names:
 *   LOCATOR or BANK/LOCATOR   a DIMM, in any case of letters
 *   set:N                     an interleave set
 *   node:N or NODEn           a NUMA node
 *   mfn:START-END             hexadecimal, half-open; what is not RAM is cut out
 * *ranges is zeroed or a valid set; it is replaced.  On FS_OK err->text is "" or words about what was cut.
 * FS_NOT_FOUND lists the known names; FS_BAD_RANGE: no RAM there; FS_USAGE: malformed;
 * FS_UNSUPPORTED: one DIMM of an interleave set, its set named. */
fs_status_t topology_find(const struct hv_topology *t, const char *target, struct mfn_range_set *ranges,
                          struct fs_error *err) FS_MUST_CHECK;

/* The node that a frame lies on, UINT32_MAX where nothing tells. */
uint32_t topology_node_of(const struct hv_topology *t, mfn_t mfn);

#endif
