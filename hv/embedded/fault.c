/*
 * fault.c - failures on purpose: the n-th call of an operation fails, or runs a hook first.
 *
 * Owns: m->fault.
 * Invariants: I1 a call that fails by plan has done nothing, or (partial) exactly half of
 * its list, which it reports as a real shortfall would be reported;
 * I2 the count includes only calls that can fail: not close, unmap, clock_ns.
 * Lock order: takes the machine's lock for the count and the hook.  The lock is recursive, so the
 * hook may destroy a domain, balloon a page out, or raise SIGKILL: no other thread's operation is half done then.
 * Why by count: a run is repeatable, so "fail call n" for n = 1, 2, ... visits
 * every call that the engine makes, without naming any.
 */
#include "emb_priv.h"

static const struct {
    const char *name;
    fs_status_t status;
    bool partial;
} ops[] = {
#define X(member, status, partial) [EMB_OP_##member] = { #member, FS_##status, partial },
    EMB_OP_LIST(X)
#undef X
};

const char *emb_op_name(enum emb_op op)
{
    return (unsigned)op < EMB_OP_COUNT ? ops[op].name : "?";
}

void emb_fault_arm(struct emb_machine *m, const struct emb_fault_plan *plan)
{
    emb_lock(m);
    m->fault = (struct emb_fault_state){ 0 };
    if (plan) {
        m->fault.plan = *plan;
    }
    emb_unlock(m);
}

uint64_t emb_fault_calls(struct emb_machine *m)
{
    emb_lock(m);
    uint64_t n = m->fault.calls;
    emb_unlock(m);
    return n;
}

uint64_t emb_fault_fired(struct emb_machine *m)
{
    emb_lock(m);
    uint64_t n = m->fault.fired;
    emb_unlock(m);
    return n;
}

static bool decide(struct emb_fault_state *f, enum emb_op op)
{
    const struct emb_fault_plan *p = &f->plan;
    if (f->failing_left > 0 && op == p->op) {
        f->failing_left--;
        return true;
    }
    if (p->fail_call != 0 && f->calls == p->fail_call) {
        f->plan.op = op;                /* the row that follows is of this operation */
        f->failing_left = p->fail_times > 1 ? p->fail_times - 1 : 0;
        return true;
    }
    return false;
}

bool emb_fault_enter(struct emb_machine *m, enum emb_op op, fs_status_t *status, bool *partial)
{
    emb_lock(m);
    struct emb_fault_state *f = &m->fault;
    bool counted = !f->plan.only_op || op == f->plan.op;
    emb_hook_fn hook = NULL;
    void *arg = f->plan.hook_arg;
    uint64_t call = f->calls + 1;
    bool fail = false;
    if (counted) {
        f->calls++;
        if (f->plan.hook && (f->plan.hook_call == call || f->plan.hook_call == UINT64_MAX)) {
            hook = f->plan.hook;
        }
        fail = decide(f, op);
    }
    f->fired += fail;
    *status = ops[op].status;
    *partial = f->plan.partial && ops[op].partial;
    if (hook) {
        m->in_hook = true;
        hook(arg, m, op, call);
        m->in_hook = false;
    }
    emb_unlock(m);
    return fail;
}
