/*
 * held_shape.h - what a guest page that Xen itself uses looks like.
 *
 * Pure: page is FS_PAGE_BYTES of bytes, which may change while they are looked at. A shape proves nothing; see held_shape.c.
 */
#ifndef FRAMESHIFT_HV_HELD_SHAPE_H
#define FRAMESHIFT_HV_HELD_SHAPE_H

#include <stdbool.h>
#include <stdint.h>

enum held_kind { HELD_VCPU = 1, HELD_ARRAY = 2, HELD_CONTROL = 4 };

/* Kinds of page that the bytes could be: superset by shape. */
unsigned held_shape(const void *page, uint32_t port_limit);
/* Next offset >= from at which a vcpu_info could lie; -1 none. */
int held_shape_vcpu_next(const void *page, int from);
bool held_shape_vcpu_likely(const void *page);
bool held_shape_control(const void *page, uint32_t port_limit);
bool held_shape_array(const void *page);

#endif
