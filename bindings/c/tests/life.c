/* A packet from one card to another, which is then suspended and goes on as a third one: registry, doorbells, calls, the dirty
 * log, and where a queue stands. */
#include <poll.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>
#include <vdpa.h>

enum { DRIVER = 3, DRIVER_OK = 4, FEATURES_OK = 8, WAIT = 30000, PAGE = 4096, SIZE = 4, LEN = 8 * PAGE };
/* In each card's memory: a split ring, then buffers of a page each. */
enum { DESC = 0, AVAIL = 256, USED = 512, BUFFERS = PAGE, HEADER = 12, FRAME = 60 };

struct card {
    struct vdpa_device *device;
    struct vdpa_doorbell *bell;
    uint8_t *memory;
    uint16_t queue; /* 0 receives, 1 sends */
    int called;
};

static void must(int line, int truth, const char *what) {
    if (truth) return;
    fprintf(stderr, "line %d: not so: %s (last error: %s)\n", line, what, vdpa_last_error());
    exit(1);
}
#define IS(truth) must(__LINE__, truth, #truth)
#define OK(call) must(__LINE__, (call) == 0, #call)

static _Atomic uint16_t *index_at(struct card *c, int ring) { return (_Atomic uint16_t *)(c->memory + ring + 2); }

/* Puts buffer `i` into entry `i` of the ring. */
static void give(struct card *c, uint16_t i, uint32_t len) {
    struct { uint64_t addr; uint32_t len; uint16_t flags, next; } d = {BUFFERS + (uint64_t)i * PAGE, len, c->queue ? 0 : 2, 0};
    memcpy(c->memory + DESC + 16 * i, &d, sizeof d);
    memcpy(c->memory + AVAIL + 4 + 2 * i, &i, sizeof i);
    atomic_store_explicit(index_at(c, AVAIL), i + 1, memory_order_release); /* pairs with the card's acquire */
    OK(vdpa_doorbell_ring(c->bell, c->queue));
}

static void wait_used(struct card *c, uint16_t count) {
    struct pollfd fds = {.fd = c->called, .events = POLLIN};
    uint64_t calls;
    while (atomic_load_explicit(index_at(c, USED), memory_order_acquire) != count) {
        IS(poll(&fds, 1, WAIT) == 1);
        IS(read(c->called, &calls, sizeof calls) == sizeof calls);
    }
}

static struct card opened(struct vdpa_registry *r, const char *spec, uint16_t queue, uint8_t *memory,
                          const struct vdpa_queue_state *state) {
    struct card c = {.queue = queue, .memory = memory, .called = eventfd(0, EFD_CLOEXEC)};
    struct vdpa_mapping m = {.iova = 0, .len = LEN, .memory = memory, .flags = VDPA_READS | VDPA_WRITES | VDPA_LOGGED,
                             .gpa = 0x100000};
    struct vdpa_queue_setup s = {.descriptor = DESC, .driver = AVAIL, .device = USED, .size = SIZE};
    struct vdpa_features f = {{1ull << 32, 0}};
    OK(vdpa_registry_open(r, spec, &c.device));
    OK(vdpa_device_map(c.device, &m));
    OK(vdpa_device_accept(c.device, &f, NULL));
    OK(vdpa_device_write_status(c.device, DRIVER | FEATURES_OK));
    OK(vdpa_device_start_queue(c.device, queue, &s, state, -1, c.called, &c.bell));
    OK(vdpa_device_write_status(c.device, DRIVER | FEATURES_OK | DRIVER_OK));
    return c;
}
static void closed(struct card *c) {
    OK(vdpa_doorbell_free(c->bell));
    OK(vdpa_device_unmap(c->device, 0, 0, LEN, WAIT));
    OK(vdpa_device_close(c->device, WAIT));
    close(c->called);
}

static void send_one(struct card *a, struct card *b, uint16_t i) {
    uint8_t *frame = a->memory + BUFFERS + i * PAGE + HEADER;
    memset(frame, 0xff, 6);
    memset(frame + 6, 0x30 + i, FRAME - 6);
    frame[6] = 2; /* an address of one card */
    give(b, i, PAGE);
    give(a, i, HEADER + FRAME);
    wait_used(a, i + 1);
    wait_used(b, i + 1);
    IS(memcmp(b->memory + BUFFERS + i * PAGE + HEADER, frame, FRAME) == 0);
}

int main(void) {
    struct vdpa_registry *r;
    uint8_t *from = calloc(LEN / PAGE, PAGE), *to = calloc(LEN / PAGE, PAGE);
    _Alignas(8) uint8_t bits[64] = {0};
    struct vdpa_dirty_log log = {.bits = bits, .len = sizeof bits};
    struct vdpa_queue_state state;
    struct card a, b;
    uint8_t status;
    int event = eventfd(0, EFD_CLOEXEC);
    IS(from && to && event >= 0);

    OK(vdpa_registry_new(&r));
    a = opened(r, "sim:net,port=wire:life", 1, from, NULL);
    b = opened(r, "sim:net,port=wire:life", 0, to, NULL);
    OK(vdpa_device_set_dirty_log(b.device, 0, &log, WAIT));
    send_one(&a, &b, 0);
    /* Page 0x100 has the used ring, the next one the first buffer; the second was not touched. */
    OK(vdpa_device_set_dirty_log(b.device, 0, NULL, WAIT)); /* what it wrote is there, and nobody writes any more */
    IS(bits[0x100 / 8] == 3);

    /* A new call is raised once, so that nothing is missed. */
    OK(vdpa_device_replace_call(b.device, 0, event));
    close(b.called);
    b.called = event;
    IS(poll(&(struct pollfd){.fd = event, .events = POLLIN}, 1, WAIT) == 1);

    /* The driver does not see that the card is stopped. */
    OK(vdpa_device_suspend(b.device, WAIT));
    OK(vdpa_device_status(b.device, &status));
    IS(status == (DRIVER | FEATURES_OK | DRIVER_OK));
    OK(vdpa_device_queue_state(b.device, 0, &state));
    IS(state.kind == VDPA_STATE_SPLIT && state.avail == 1 && state.used == 1);
    OK(vdpa_device_resume(b.device));
    send_one(&a, &b, 1);
    OK(vdpa_device_suspend(b.device, WAIT));
    OK(vdpa_device_queue_state(b.device, 0, &state));
    IS(state.avail == 2 && state.used == 2);
    closed(&b);
    b = opened(r, "sim:net,port=wire:life", 0, to, &state);
    OK(vdpa_registry_free(r)); /* they have found each other */
    send_one(&a, &b, 2);

    closed(&a);
    closed(&b);
    free(from), free(to);
    puts("moved, and all packets right");
    return 0;
}
