/* A driver of its own for a simulated network card: split rings in its own memory, packets sent through the card's loopback
 * and looked at when they come back. Nothing of the library's drives the rings.
 *
 *   cc loopback.c $(pkg-config --cflags --libs vdpa) -o loopback && ./loopback
 */
#include <poll.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>
#include <vdpa.h>

enum { ACKNOWLEDGE = 1, DRIVER = 2, DRIVER_OK = 4, FEATURES_OK = 8 }; /* virtio 1.4 §2.1 */
enum { VERSION_1 = 32 };                                              /* §6 */
enum { RX = 0, TX = 1, SIZE = 64, PACKETS = 1000, HEADER = 12, FRAME = 60, BUFFER = 2048 };
enum { DESC_WRITE = 2 };
static const uint64_t BASE = 0x100000; /* where the card sees the memory below */

/* One split ring (§2.7) and its buffers. Its driver area needs an alignment of 2, its device area of 4. */
struct ring {
    struct { uint64_t addr; uint32_t len; uint16_t flags, next; } desc[SIZE];
    struct { uint16_t flags; _Atomic uint16_t idx; uint16_t ring[SIZE], used_event; } avail;
    struct { uint16_t flags; _Atomic uint16_t idx; struct { uint32_t id, len; } ring[SIZE]; uint16_t avail_event; } used;
    uint8_t buffer[SIZE][BUFFER];
};
static struct { _Alignas(4096) struct ring ring[2]; } *shared;
static int kick[2], called;
static uint16_t seen[2]; /* used entries that were taken */

static void must(int result, const char *what) {
    if (result >= 0) return;
    fprintf(stderr, "%s: %s: %s\n", what, vdpa_error_name(result), vdpa_last_error());
    exit(1);
}
static void expect(int truth, const char *what) {
    if (truth) return;
    fprintf(stderr, "wrong: %s\n", what);
    exit(1);
}
#define MUST(call) must(call, #call)

static uint64_t seen_at(const void *at) { return BASE + (uint64_t)((const char *)at - (const char *)shared); }

static void start(struct vdpa_device *card, uint16_t q) {
    struct ring *r = &shared->ring[q];
    struct vdpa_queue_setup setup = {.descriptor = seen_at(r->desc), .driver = seen_at(&r->avail),
                                     .device = seen_at(&r->used), .size = SIZE};
    kick[q] = eventfd(0, EFD_CLOEXEC);
    expect(kick[q] >= 0, "an eventfd for kicks");
    MUST(vdpa_device_start_queue(card, q, &setup, NULL, kick[q], q == RX ? called : -1, NULL));
}

/* Gives descriptor `i` of a ring to the card. */
static void give(uint16_t q, uint16_t i, uint32_t len) {
    struct ring *r = &shared->ring[q];
    uint16_t idx = atomic_load_explicit(&r->avail.idx, memory_order_relaxed);
    r->desc[i].addr = seen_at(r->buffer[i]);
    r->desc[i].len = len;
    r->desc[i].flags = q == RX ? DESC_WRITE : 0;
    r->avail.ring[idx % SIZE] = i;
    /* Pairs with the card's acquire load: it sees the entry, and the buffer, before the index. */
    atomic_store_explicit(&r->avail.idx, idx + 1, memory_order_release);
}

static void ring_it(uint16_t q) {
    uint64_t one = 1;
    expect(write(kick[q], &one, sizeof one) == sizeof one, "a kick");
}

/* The next used entry of a ring, or -1. */
static int take(uint16_t q, uint32_t *len) {
    struct ring *r = &shared->ring[q];
    if (atomic_load_explicit(&r->used.idx, memory_order_acquire) == seen[q]) return -1;
    *len = r->used.ring[seen[q] % SIZE].len;
    return (int)r->used.ring[seen[q]++ % SIZE].id;
}

static void fill(uint8_t *frame, uint32_t number) {
    memset(frame, 0xff, 6); /* to everybody */
    memcpy(frame + 6, "\x52\x54\x00\x00\x00\x02\x88\xb5", 8);
    for (int i = 14; i < FRAME; i++) frame[i] = (uint8_t)(number * 7 + (uint32_t)i);
    memcpy(frame + 14, &number, sizeof number);
}

/* Waits until something came, or an event says what is wrong. */
static void wait_for_call(struct vdpa_device *card) {
    struct pollfd fds[2] = {{.fd = called, .events = POLLIN}, {.events = POLLIN}};
    MUST(vdpa_device_events_fd(card, &fds[1].fd));
    expect(poll(fds, 2, 30000) > 0, "a packet within 30 s");
    struct vdpa_event event;
    while (vdpa_device_next_event(card, &event) == 1)
        if (event.kind == VDPA_EVENT_NEEDS_RESET) {
            fprintf(stderr, "the card is lost: %s\n", event.why);
            exit(1);
        }
    uint64_t count;
    if (read(called, &count, sizeof count) < 0) return; /* it was the events' */
}

int main(void) {
    struct vdpa_device *card;
    MUST(vdpa_open("sim:net,port=loopback,mac=52:54:00:00:00:01,queue_size=64", &card));

    shared = aligned_alloc(4096, (sizeof *shared + 4095) / 4096 * 4096);
    expect(shared != NULL, "memory");
    memset(shared, 0, sizeof *shared);
    struct vdpa_mapping mapping = {.iova = BASE, .len = sizeof *shared, .memory = shared,
                                   .flags = VDPA_READS | VDPA_WRITES};
    MUST(vdpa_device_map(card, &mapping));

    /* virtio 1.4 §3.1.1, as a guest's driver does it. */
    struct vdpa_features offered, chosen = {{1ull << VERSION_1, 0}};
    uint8_t status = ACKNOWLEDGE | DRIVER, mac[6];
    MUST(vdpa_device_write_status(card, status));
    MUST(vdpa_device_offered(card, &offered));
    expect(offered.words[0] >> VERSION_1 & 1, "VERSION_1 is offered");
    MUST(vdpa_device_accept(card, &chosen, NULL));
    MUST(vdpa_device_write_status(card, status |= FEATURES_OK));
    MUST(vdpa_device_status(card, &status));
    expect(status & FEATURES_OK, "the card takes the features");
    MUST(vdpa_device_read_config(card, 0, mac, sizeof mac));
    expect(memcmp(mac, "\x52\x54\x00\x00\x00\x01", 6) == 0, "the address of the card");

    called = eventfd(0, EFD_CLOEXEC);
    expect(called >= 0, "an eventfd for calls");
    for (uint16_t i = 0; i < SIZE; i++) give(RX, i, BUFFER);
    shared->ring[TX].avail.flags = 1; /* no calls for what was sent: it is looked at anyway */
    start(card, RX);
    start(card, TX);
    MUST(vdpa_device_write_status(card, status | DRIVER_OK));

    uint32_t sent = 0, received = 0, len;
    uint16_t free_slots = SIZE;
    while (received < PACKETS) {
        int slot;
        while (take(TX, &len) >= 0) free_slots++;
        /* Descriptors come back in order here, so that the next free one is known by its number. */
        for (; free_slots > 0 && sent < PACKETS; sent++, free_slots--) {
            uint8_t *buffer = shared->ring[TX].buffer[sent % SIZE];
            memset(buffer, 0, HEADER); /* no offload is negotiated */
            fill(buffer + HEADER, sent);
            give(TX, (uint16_t)(sent % SIZE), HEADER + FRAME);
        }
        ring_it(TX);
        while ((slot = take(RX, &len)) >= 0) {
            uint8_t should[FRAME];
            fill(should, received);
            expect(slot < SIZE && len == HEADER + FRAME, "the length of a packet");
            expect(memcmp(shared->ring[RX].buffer[slot] + HEADER, should, FRAME) == 0, "the bytes of a packet");
            received++;
            give(RX, (uint16_t)slot, BUFFER);
        }
        ring_it(RX);
        if (received < PACKETS) wait_for_call(card);
    }
    printf("%u packets sent, %u received and right\n", sent, received);

    MUST(vdpa_device_reset(card, 5000));
    MUST(vdpa_device_unmap(card, 0, BASE, sizeof *shared, 5000));
    free(shared); /* it was unmapped */
    MUST(vdpa_device_close(card, 5000));
    close(kick[RX]), close(kick[TX]), close(called);
    return 0;
}
