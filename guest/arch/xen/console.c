/*
 * console.c - the PV console: a ring shared with the console daemon in dom0.
 *
 * Owns: the ring's producer side, and the lines of the kernel's own messages.
 * Invariants:
 *   I1  out_prod - out_cons <= the ring's size, whatever the daemon writes there: a count beyond it is taken as "full".
 *   I2  nothing waits for ever: a daemon that does not read for CONSOLE_LIMIT_NS is not waited for again.
 * Lock order: none (one vCPU).
 * Why: before the ring is known, and for a panic, text goes to Xen's own console as well; a release build of Xen refuses
 *   that to ordinary domains, which is no error here.  Events are masked, so waiting is SCHEDOP_poll on the console's
 *   port, which needs no upcall.
 * Cost: one notification a write.
 */
#include "kernel.h"
#include "../../lib/text.h"
#include <xen/io/console.h>

#define CONSOLE_LIMIT_NS 10000000000ull
#define CONSOLE_STEP_NS  50000000ull

static struct xencons_interface *ring;
static evtchn_port_t ring_port;
static bool daemon_gone;

void console_open(void *at, evtchn_port_t port)
{
    ring = at;
    ring_port = port;
}

void console_moved(void *at)
{
    ring = at;
}

static uint32_t ring_used(void)
{
    uint32_t used = ring->out_prod - __atomic_load_n(&ring->out_cons, __ATOMIC_ACQUIRE);

    return used <= sizeof(ring->out) ? used : (uint32_t)sizeof(ring->out);      /* I1 */
}

static void notify(void)
{
    event_send(ring_port);
}

/* A nap until the daemon says something or the step is over. */
static void nap(void)
{
    evtchn_port_t port = ring_port;

    if (shared_info != NULL && event_port_good(port)) {
        event_clear(port);
        event_wait(&port, 1, CONSOLE_STEP_NS);
    } else {
        (void)hv_sched(SCHEDOP_yield, NULL);
    }
}

/* Until at most `used` bytes wait in the ring; false if the time is over. */
static bool wait_used(uint32_t used, uint64_t limit_ns)
{
    uint64_t start = arch_time_ns();
    uint32_t yields = 0;

    while (ring_used() > used) {
        notify();
        nap();
        yields += shared_info == NULL;
        if (arch_time_ns() - start > limit_ns || yields > 1000000) {
            return false;
        }
    }
    return true;
}

static void put(char c)
{
    if (ring_used() == sizeof(ring->out)) {
        if (daemon_gone) {
            return;
        }
        daemon_gone = !wait_used((uint32_t)sizeof(ring->out) - 1, CONSOLE_LIMIT_NS);        /* I2 */
        if (daemon_gone) {
            return;
        }
    }
    ring->out[MASK_XENCONS_IDX(ring->out_prod, ring->out)] = c;
    __atomic_store_n(&ring->out_prod, ring->out_prod + 1, __ATOMIC_RELEASE);
}

void arch_console_write(const char *text, size_t bytes)
{
    if (ring == NULL) {
        (void)hv_console_write(text, bytes);
        return;
    }
    for (size_t i = 0; i < bytes; i++) {
        if (text[i] == '\n') {
            put('\r');
        }
        put(text[i]);
    }
    notify();
}

void console_drain(uint64_t limit_ns)
{
    if (ring != NULL && !daemon_gone) {
        daemon_gone = !wait_used(0, limit_ns);
    }
}

void print(const char *words)
{
    size_t bytes = 0;

    while (words[bytes] != '\0') {
        bytes++;
    }
    arch_console_write(words, bytes);
}

void print_number(const char *words, uint64_t n)
{
    struct text t;

    text_clear(&t);
    text_word(&t, words);
    text_word(&t, "=");
    text_number(&t, n);
    arch_console_write(t.line, t.bytes);
}

void print_line(const char *words)
{
    print(words);
    print("\n");
}
