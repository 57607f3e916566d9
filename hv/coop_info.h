/*
 * coop_info.h - the tables of a guest that speaks abi.h (INFO, TUNE), read and checked.
 *
 * Owns: nothing.  What comes out is in bounds and printable; whether it is true only the guest knows.
 */
#ifndef FRAMESHIFT_HV_COOP_INFO_H
#define FRAMESHIFT_HV_COOP_INFO_H

#include "coop_channel.h"
#include "hv.h"

/* All of a table; *out is malloc'd. pre: the channel is idle. FS_BAD_INPUT: the guest's entries are no good. FS_UNSUPPORTED: it does not serve INFO. */
fs_status_t coop_info_values(struct coop_channel *ch, enum fs_abi_table table, struct hv_meminfo_value **out, size_t *count,
                             struct fs_error *err) FS_MUST_CHECK;
fs_status_t coop_info_zones(struct coop_channel *ch, struct hv_meminfo_zone **out, size_t *count, struct fs_error *err) FS_MUST_CHECK;
/* Set one tunable. FS_REFUSED with words: there is none of that name, or it does not take the value. */
fs_status_t coop_info_tune(struct coop_channel *ch, const char *name, uint64_t value, struct hv_meminfo_set *out, struct fs_error *err) FS_MUST_CHECK;

#endif
