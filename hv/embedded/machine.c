/*
 * machine.c - the machine itself: shared memory, the lock, frames by number.
 *
 * Owns: struct emb_machine, its arena and the memory behind machine frames.
 * Invariants:
 *  I1 everything that outlives a call lies in the arena, which is a MAP_SHARED
 *     memfd mapping made before any fork: a process that is killed loses
 *     nothing but its own foreign mappings;
 *  I2 contents of frames that were never given out and untouched metadata cost no memory: both memfds
 *     are sparse, and an all-zero struct emb_frame is a free frame;
 *  I3 frame 0 belongs to Xen's image, so that 0 can mean "no frame" in cr3 fields.
 * Lock order: one lock, m->lock, taken by every exported function and every
 * backend operation; internal functions are called with it held.
 * Why robust: the lock's owner may be killed.  A kill inside an operation (an
 * asynchronous SIGKILL) can leave half of a "hypercall" done, which no hypervisor
 * does: we stop with a message instead of going on with such a machine.  Fault hooks
 * run with the lock held, so that a kill there comes between operations, whatever other
 * threads do; that is why it is recursive.
 * Cost: creation touches one page per free buddy; allocation in the arena is by
 * power-of-two classes, O(1).
 */
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "emb_priv.h"

#define PAGE_UP(n) (((n) + FS_PAGE_BYTES - 1) & ~(uint64_t)(FS_PAGE_BYTES - 1))

uint64_t emb_random(uint64_t *state)
{
    uint64_t z = (*state += 0x9e3779b97f4a7c15ull);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
}

/* ---- the arena ----------------------------------------------------------- */

static unsigned size_class(uint64_t bytes)
{
    unsigned c = 5;                     /* 32 bytes: a free block holds its list link */
    while (((uint64_t)1 << c) < bytes) {
        c++;
    }
    ASSERT_CMP(c, <, EMB_CLASSES);
    return c;
}

void *emb_alloc(struct emb_machine *m, uint64_t bytes)
{
    unsigned c = size_class(bytes);
    uint64_t size = (uint64_t)1 << c;
    uint64_t at = m->arena.free[c];
    if (at) {
        char *p = (char *)m + at;
        memcpy(&m->arena.free[c], p, sizeof(uint64_t));
        memset(p, 0, bytes);
        return p;
    }
    uint64_t align = size < FS_PAGE_BYTES ? size : FS_PAGE_BYTES;
    at = (m->arena.bump + align - 1) & ~(align - 1);
    if (at + size > m->arena.size) {
        return NULL;
    }
    m->arena.bump = at + size;
    return (char *)m + at;
}

void emb_free(struct emb_machine *m, void *p, uint64_t bytes)
{
    if (!p) {
        return;
    }
    unsigned c = size_class(bytes);
    memcpy(p, &m->arena.free[c], sizeof(uint64_t));
    m->arena.free[c] = (uint64_t)((char *)p - (char *)m);
}

/* ---- the lock ------------------------------------------------------------ */

static int lock_init(pthread_mutex_t *lock)
{
    pthread_mutexattr_t attr;
    int rc = pthread_mutexattr_init(&attr);
    if (rc) {
        return rc;
    }
    rc = pthread_mutexattr_setpshared(&attr, PTHREAD_PROCESS_SHARED);
    if (!rc) {
        rc = pthread_mutexattr_setrobust(&attr, PTHREAD_MUTEX_ROBUST);
    }
    if (!rc) {
        rc = pthread_mutexattr_settype(&attr, PTHREAD_MUTEX_RECURSIVE);
    }
    if (!rc) {
        rc = pthread_mutex_init(lock, &attr);
    }
    (void)pthread_mutexattr_destroy(&attr);
    return rc;
}

void emb_lock(struct emb_machine *m)
{
    int rc = pthread_mutex_lock(&m->lock);
    if (rc == EOWNERDEAD && m->in_hook) {
        m->in_hook = false;             /* killed by a fault hook, between operations: nothing is half done */
        rc = pthread_mutex_consistent(&m->lock);
    }
    ASSERT_CMP(rc, ==, 0);              /* EOWNERDEAD: killed inside an operation, see "Why robust" */
}

void emb_unlock(struct emb_machine *m)
{
    int rc = pthread_mutex_unlock(&m->lock);
    ASSERT_CMP(rc, ==, 0);
}

/* ---- frames by number ---------------------------------------------------- */

int emb_node_of(const struct emb_machine *m, uint64_t mfn)
{
    for (uint32_t i = 0; i < m->config.node_count; i++) {
        if (mfn >= m->nodes[i].start && mfn < m->nodes[i].end) {
            return (int)i;
        }
    }
    return -1;
}

bool emb_is_ram(const struct emb_machine *m, uint64_t mfn)
{
    return emb_node_of(m, mfn) >= 0;
}

struct mfn_range emb_node_range(const struct emb_machine *m, uint32_t node)
{
    ASSERT_CMP(node, <, m->config.node_count);
    return (struct mfn_range){ mfn_make(m->nodes[node].start), mfn_make(m->nodes[node].end) };
}

uint64_t emb_free_pages(struct emb_machine *m)
{
    uint64_t pages = 0;
    emb_lock(m);
    for (uint32_t i = 0; i < m->config.node_count; i++) {
        pages += m->nodes[i].free_pages;
    }
    emb_unlock(m);
    return pages;
}

/* ---- creation ------------------------------------------------------------ */

static void *shared_map(uint64_t bytes, const char *name, int *fd)
{
    *fd = memfd_create(name, MFD_CLOEXEC);
    if (*fd < 0) {
        return NULL;
    }
    void *p = MAP_FAILED;
    if (ftruncate(*fd, (off_t)bytes) == 0) {
        p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, *fd, 0);
    }
    if (p == MAP_FAILED) {
        (void)close(*fd);
        *fd = -1;
        return NULL;
    }
    return p;
}

static uint64_t lay_out_nodes(const struct emb_config *c, struct emb_node *nodes)
{
    uint64_t at = 0;
    for (uint32_t i = 0; i < c->node_count; i++) {
        at += c->nodes[i].hole_pages;
        nodes[i].start = at;
        at += c->nodes[i].pages;
        nodes[i].end = at;
    }
    return at;
}

static void mark_xen(struct emb_machine *m, uint64_t start, uint64_t pages, uint8_t flags)
{
    for (uint64_t mfn = start; mfn < start + pages; mfn++) {
        m->frames[mfn].state = EMB_S_INUSE;
        m->frames[mfn].flags = flags;
    }
}

/* Xen's own frames first, the rest of each node to the heap. */
static void give_ram(struct emb_machine *m)
{
    for (uint32_t i = 0; i < m->config.node_count; i++) {
        struct emb_node *n = &m->nodes[i];
        uint64_t at = n->start;
        if (i == 0) {
            mark_xen(m, at, m->config.image_pages, EMB_F_IMAGE);
            at += m->config.image_pages;
        }
        mark_xen(m, at, m->config.anon_pages, 0);
        emb_heap_add(m, at + m->config.anon_pages, n->end);
    }
}

static bool config_ok(const struct emb_config *c)
{
    if (c->node_count == 0 || c->node_count > EMB_NODES_MAX) {
        return false;
    }
    uint64_t total = 0;
    for (uint32_t i = 0; i < c->node_count; i++) {
        uint64_t own = c->anon_pages + (i == 0 ? c->image_pages : 0);
        if (c->nodes[i].pages <= own || c->nodes[i].pages >= (1ull << 31) || c->nodes[i].hole_pages >= (1ull << 31)) {
            return false;
        }
        total += c->nodes[i].pages + c->nodes[i].hole_pages;
    }
    return c->nodes[0].hole_pages == 0 && total < UINT32_MAX;    /* I3; links are 32 bits wide */
}

struct emb_machine *emb_machine_create(const struct emb_config *config)
{
    struct emb_config c = *config;
    c.pcpus = c.pcpus ? c.pcpus : 2;
    c.image_pages = c.image_pages ? c.image_pages : 64;
    if (!config_ok(&c)) {
        errno = EINVAL;
        return NULL;
    }
    struct emb_node nodes[EMB_NODES_MAX] = { 0 };
    uint64_t frames = lay_out_nodes(&c, nodes);
    uint64_t table_bytes = PAGE_UP(frames * sizeof(struct emb_frame));
    uint64_t head_bytes = PAGE_UP(sizeof(struct emb_machine));
    uint64_t bytes = head_bytes + table_bytes + frames * 64 + (512ull << 20);   /* sparse: I2 */

    int fd;
    struct emb_machine *m = shared_map(bytes, "frameshift-machine", &fd);
    if (!m) {
        return NULL;
    }
    (void)close(fd);
    *m = (struct emb_machine){ .bytes = bytes, .contents_fd = -1, .max_mfn = frames, .config = c, .next_domid = 1, .rng = c.seed };
    memcpy(m->nodes, nodes, sizeof(nodes));
    m->frames = (struct emb_frame *)(void *)((char *)m + head_bytes);
    m->arena.bump = head_bytes + table_bytes;
    m->arena.size = bytes;
    if (lock_init(&m->lock) != 0) {
        goto fail;
    }
    if (!c.no_contents) {
        m->contents = shared_map(frames * FS_PAGE_BYTES, "frameshift-ram", &m->contents_fd);
        if (!m->contents) {
            goto fail;
        }
    }
    give_ram(m);
    return m;
fail:
    (void)munmap(m, bytes);
    errno = ENOMEM;
    return NULL;
}

uint64_t emb_metadata_bytes(const struct emb_machine *m)
{
    return PAGE_UP(m->max_mfn * sizeof(struct emb_frame));
}

uint64_t emb_arena_bytes(struct emb_machine *m)
{
    emb_lock(m);
    uint64_t bytes = m->arena.bump - emb_metadata_bytes(m);     /* freed blocks included: they stay in its lists */
    emb_unlock(m);
    return bytes;
}

void emb_machine_destroy(struct emb_machine *m)
{
    if (!m) {
        return;
    }
    if (m->contents) {
        (void)munmap(m->contents, m->max_mfn * FS_PAGE_BYTES);
        (void)close(m->contents_fd);
    }
    (void)munmap(m, m->bytes);
}
