/*
 * room.h - where new frames come from.
 *
 * Owns: the order of nodes to allocate from during one evacuation, and how many
 * frames each may still give.  Nodes whose frames lie in the evacuated ranges give
 * nothing: an exact-node allocation there could return a frame of the range.
 */
#ifndef FRAMESHIFT_HV_ROOM_H
#define FRAMESHIFT_HV_ROOM_H

#include "backend.h"

struct room {
    size_t count;
    struct { uint32_t node; uint64_t free_pages; } nodes[HV_NODES_MAX];   /* in order of preference */
};

/* node_of: the node of each DIMM range is told by the caller through barred: true bars the node. keep_pages stay free on each node. */
void room_init(struct room *room, const struct hv_host *host, const bool barred[HV_NODES_MAX], uint64_t keep_pages);
uint64_t room_free(const struct room *room);
/* The node to take from next, and at most how many; false if nothing is left. */
bool room_next(const struct room *room, uint32_t *node, uint64_t *pages);
void room_take(struct room *room, uint32_t node, uint64_t pages);
void room_exhausted(struct room *room, uint32_t node);      /* the machine said no: do not ask there again */

#endif
