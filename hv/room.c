/*
 * room.c - where new frames come from.
 *
 * Owns: struct room, the nodes of one evacuation in order of preference.
 * Invariants:
 *  I1 a barred node is never in the room: an exact-node allocation there could
 *     return a frame of the range that is being emptied;
 *  I2 free_pages is what the node may still give, the pages to keep already
 *     subtracted; it never goes below 0.
 * Lock order: none.
 * Why the node with most free pages first: few large takes keep a guest's new frames on one
 * node and leave superpages whole; equal nodes go by number, so that two runs on
 * the same host choose alike.
 * Cost: O(nodes) everywhere, at most HV_NODES_MAX.
 */
#include "room.h"

#include "frameshift/assert.h"

static void insert(struct room *room, uint32_t node, uint64_t free_pages)
{
    size_t i = room->count;

    ASSERT_CMP(room->count, <, HV_NODES_MAX);
    while (i > 0 && (room->nodes[i - 1].free_pages < free_pages ||
                     (room->nodes[i - 1].free_pages == free_pages && room->nodes[i - 1].node > node))) {
        room->nodes[i] = room->nodes[i - 1];
        i--;
    }
    room->nodes[i].node = node;
    room->nodes[i].free_pages = free_pages;
    room->count++;
}

void room_init(struct room *room, const struct hv_host *host, const bool barred[HV_NODES_MAX], uint64_t keep_pages)
{
    *room = (struct room){ 0 };
    for (uint32_t i = 0; i < host->node_count && i < HV_NODES_MAX; i++) {
        const struct hv_node *n = &host->nodes[i];

        /* A number that barred[] cannot name cannot be proved to be safe (I1). */
        if (n->id >= HV_NODES_MAX || barred[n->id] || n->free_pages <= keep_pages) {
            continue;
        }
        insert(room, n->id, n->free_pages - keep_pages);
    }
}

uint64_t room_free(const struct room *room)
{
    uint64_t pages = 0;

    for (size_t i = 0; i < room->count; i++) {
        pages += room->nodes[i].free_pages;
    }
    return pages;
}

bool room_next(const struct room *room, uint32_t *node, uint64_t *pages)
{
    for (size_t i = 0; i < room->count; i++) {
        if (room->nodes[i].free_pages) {
            *node = room->nodes[i].node;
            *pages = room->nodes[i].free_pages;
            return true;
        }
    }
    return false;
}

static size_t find(const struct room *room, uint32_t node)
{
    size_t i = 0;

    while (i < room->count && room->nodes[i].node != node) {
        i++;
    }
    ASSERT_CMP(i, <, room->count);
    return i;
}

void room_take(struct room *room, uint32_t node, uint64_t pages)
{
    size_t i = find(room, node);

    ASSERT_CMP(pages, <=, room->nodes[i].free_pages);   /* I2 */
    room->nodes[i].free_pages -= pages;
}

void room_exhausted(struct room *room, uint32_t node)
{
    room->nodes[find(room, node)].free_pages = 0;
}
