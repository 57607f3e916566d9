/*
 * corrupt.c - plants one corruption, so that emb_fsck() can be shown to find each.
 *
 * Owns: nothing.  Only tests call it.
 * Invariants: I1 each kind damages one field of one frame, node or domain, chosen by the
 * seed among those where the damage means something; false where there is none.
 * Lock order: takes the machine's lock.
 * Cost: linear search for a victim.
 */
#include "emb_guest.h"

typedef bool (*victim_fn)(struct emb_machine *m, const struct emb_frame *f, uint64_t mfn);

static bool is_owned(struct emb_machine *m, const struct emb_frame *f, uint64_t mfn)
{
    (void)m, (void)mfn;
    return f->owner && f->count > 0 && !(f->flags & EMB_F_XEN_HEAP);
}

static bool is_typed(struct emb_machine *m, const struct emb_frame *f, uint64_t mfn)
{
    return is_owned(m, f, mfn) && f->type_count > 0;
}

static bool is_table(struct emb_machine *m, const struct emb_frame *f, uint64_t mfn)
{
    return is_typed(m, f, mfn) && f->type >= EMB_T_L1 && f->type <= EMB_T_L4;
}

static bool is_l1(struct emb_machine *m, const struct emb_frame *f, uint64_t mfn)
{
    return is_table(m, f, mfn) && f->type == EMB_T_L1;
}

static bool is_pinned(struct emb_machine *m, const struct emb_frame *f, uint64_t mfn)
{
    (void)m, (void)mfn;
    return f->flags & EMB_F_PINNED;
}

static bool is_translated(struct emb_machine *m, const struct emb_frame *f, uint64_t mfn)
{
    return is_owned(m, f, mfn) && emb_owner(m, f)->kind == HV_DOMAIN_HAP && f->m2p1;
}

static bool is_free(struct emb_machine *m, const struct emb_frame *f, uint64_t mfn)
{
    (void)f;
    return emb_is_ram(m, mfn) && m->frames[mfn].state == EMB_S_FREE;
}

static bool is_head(struct emb_machine *m, const struct emb_frame *f, uint64_t mfn)
{
    return is_free(m, f, mfn) && f->order1 > 0;
}

static bool is_poisoned(struct emb_machine *m, const struct emb_frame *f, uint64_t mfn)
{
    (void)mfn;
    return m->contents && (f->flags & EMB_F_POISONED);
}

static struct emb_frame *find(struct emb_machine *m, uint64_t seed, victim_fn wanted, uint64_t *mfn)
{
    uint64_t start = emb_random(&seed) % m->max_mfn;
    for (uint64_t i = 0; i < m->max_mfn; i++) {
        *mfn = (start + i) % m->max_mfn;
        if (wanted(m, &m->frames[*mfn], *mfn)) {
            return &m->frames[*mfn];
        }
    }
    return NULL;
}

static bool corrupt_entry(struct emb_machine *m, uint64_t mfn)
{
    uint64_t *e = emb_table(m, mfn);
    for (uint32_t i = 0; i < 512; i++) {
        if (e[i] & EMB_PTE_P) {
            e[i] ^= 1ull << FS_PAGE_SHIFT;
            return true;
        }
    }
    return false;
}

static victim_fn victim_of(enum emb_corruption what)
{
    switch (what) {
    case EMB_CORRUPT_TYPE_COUNT: return is_typed;
    case EMB_CORRUPT_TYPE: return is_table;
    case EMB_CORRUPT_ENTRY: return is_l1;
    case EMB_CORRUPT_M2P: case EMB_CORRUPT_P2M: return is_translated;
    case EMB_CORRUPT_PIN: return is_pinned;
    case EMB_CORRUPT_FREE_LIST: return is_head;
    case EMB_CORRUPT_STATE: case EMB_CORRUPT_NODE_FREE: return is_free;
    case EMB_CORRUPT_FREE_BYTES: return is_poisoned;
    default: return is_owned;
    }
}

static bool damage(struct emb_machine *m, enum emb_corruption what, struct emb_frame *f, uint64_t mfn)
{
    switch (what) {
    case EMB_CORRUPT_COUNT: f->count++; break;
    case EMB_CORRUPT_TYPE_COUNT: f->type_count++; break;
    case EMB_CORRUPT_TYPE: f->type = EMB_T_WRITABLE; break;
    case EMB_CORRUPT_OWNER: f->owner = 0; break;
    case EMB_CORRUPT_M2P: f->m2p1++; break;
    case EMB_CORRUPT_PIN: f->flags &= (uint8_t)~EMB_F_PINNED; break;
    case EMB_CORRUPT_FREE_LIST: f->order1++; break;
    case EMB_CORRUPT_STATE: f->state = EMB_S_INUSE; break;
    case EMB_CORRUPT_FREE_BYTES: emb_bytes(m, mfn)[mfn % FS_PAGE_BYTES] ^= 1; break;
    case EMB_CORRUPT_TOT_PAGES: emb_owner(m, f)->tot_pages--; break;
    case EMB_CORRUPT_ENTRY: return corrupt_entry(m, mfn);
    case EMB_CORRUPT_NODE_FREE: m->nodes[emb_node_of(m, mfn)].free_pages++; break;
    case EMB_CORRUPT_P2M: return emb_p2m_clear(m, emb_owner(m, f), f->m2p1 - 1) == 0;
    default: return false;
    }
    return true;
}

bool emb_corrupt(struct emb_machine *m, enum emb_corruption what, uint64_t seed)
{
    uint64_t mfn;
    emb_lock(m);
    struct emb_frame *f = find(m, seed, victim_of(what), &mfn);
    bool done = f && damage(m, what, f, mfn);
    emb_unlock(m);
    return done;
}
