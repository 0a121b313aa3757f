/* Every way in which a call of vdpa.h can fail that a program in C can bring about, with its code and its message, and that
 * nothing is lost or leaked on the way. What only a bug or hardware brings about (VDPA_ERR_PANIC, VDPA_ERR_KEPT, VDPA_ERR_BROKEN) is in
 * src/tests.rs. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <unistd.h>
#include <vdpa.h>

enum { DRIVER = 3, DRIVER_OK = 4, FEATURES_OK = 8, NEEDS_RESET = 64 };
enum { VERSION_1 = 32, RING_PACKED = 34, NOTIFICATION_DATA = 38, RING_RESET = 40 };
enum { PAGE = 4096, LEN = 16 * PAGE, WAIT = 30000 };
#define FEATURE(bit) (1ull << (bit))
#define PLAIN FEATURE(VERSION_1)

static int failed, checked;
static _Alignas(PAGE) char memory[LEN];

static void refused(int line, const char *call, int got, int code, const char *words) {
    checked++;
    if (got == code && strstr(vdpa_last_error(), words)) return;
    failed++;
    printf("line %d: %s: returned %s, not %s with '%s': %s\n", line, call, vdpa_error_name(got), vdpa_error_name(code), words,
           vdpa_last_error());
}
static void true_(int line, const char *what, int truth) {
    checked++;
    if (truth) return;
    failed++;
    printf("line %d: not so: %s (last error: %s)\n", line, what, vdpa_last_error());
}
#define REFUSED(code, words, call) refused(__LINE__, #call, call, VDPA_ERR_##code, words)
#define IS_NULL(argument, call) REFUSED(MISUSE, "argument `" argument "` is NULL", call)
#define IS(truth) true_(__LINE__, #truth, truth)
#define OK(call) IS((call) == 0)

static struct vdpa_mapping whole(void) {
    struct vdpa_mapping m = {.iova = 0, .len = LEN, .memory = memory, .flags = VDPA_READS | VDPA_WRITES};
    return m;
}
static struct vdpa_queue_setup setup_of(uint16_t q) {
    uint64_t at = (uint64_t)q * 4 * PAGE;
    struct vdpa_queue_setup s = {.descriptor = at, .driver = at + PAGE, .device = at + 2 * PAGE, .size = 16};
    return s;
}
static struct vdpa_device *opened(const char *spec) {
    struct vdpa_device *d = NULL;
    if (vdpa_open(spec, &d) != 0) {
        printf("%s: %s\n", spec, vdpa_last_error());
        exit(1);
    }
    return d;
}
/* With its memory mapped and its features negotiated. */
static struct vdpa_device *negotiated(const char *spec, uint64_t features) {
    struct vdpa_device *d = opened(spec);
    struct vdpa_mapping m = whole();
    struct vdpa_features f = {{features, 0}};
    memset(memory, 0, sizeof memory);
    OK(vdpa_device_map(d, &m));
    OK(vdpa_device_write_status(d, DRIVER));
    OK(vdpa_device_accept(d, &f, NULL));
    OK(vdpa_device_write_status(d, DRIVER | FEATURES_OK));
    return d;
}
/* And with its two queues started. */
static struct vdpa_device *live(const char *spec, uint64_t features, struct vdpa_doorbell **bell) {
    struct vdpa_device *d = negotiated(spec, features);
    struct vdpa_queue_setup rx = setup_of(0), tx = setup_of(1);
    OK(vdpa_device_start_queue(d, 0, &rx, NULL, -1, -1, NULL));
    OK(vdpa_device_start_queue(d, 1, &tx, NULL, -1, -1, bell));
    OK(vdpa_device_write_status(d, DRIVER | FEATURES_OK | DRIVER_OK));
    return d;
}
static void closed(struct vdpa_device *d) { OK(vdpa_device_close(d, WAIT)); }

static void each(void *opaque, const char *name, uint64_t value) {
    (void)value;
    if (opaque && name[0]) ++*(int *)opaque;
}

static void null_arguments(void) {
    struct vdpa_registry *r;
    struct vdpa_device *d = opened("sim:net"), *none;
    struct vdpa_doorbell *bell;
    struct vdpa_queue_setup s = setup_of(0);
    struct vdpa_features f = {{PLAIN, 0}};
    struct vdpa_device_info info;
    struct vdpa_event event;
    struct vdpa_mapping m = whole();
    struct vdpa_queue_limits limits;
    struct vdpa_queue_state state;
    struct vdpa_doorbell_page page;
    const char *name;
    uint8_t byte;
    uint32_t number;
    uint64_t dropped;
    int fd;

    IS_NULL("registry", vdpa_registry_new(NULL));
    IS_NULL("registry", vdpa_registry_free(NULL));
    OK(vdpa_registry_new(&r));
    IS_NULL("registry", vdpa_registry_open(NULL, "sim:net", &none));
    IS_NULL("spec", vdpa_registry_open(r, NULL, &none));
    IS_NULL("device", vdpa_registry_open(r, "sim:net", NULL));
    OK(vdpa_registry_free(r));
    IS_NULL("spec", vdpa_open(NULL, &none));
    IS_NULL("device", vdpa_open("sim:net", NULL));
    IS_NULL("device", vdpa_device_info(NULL, &info));
    IS_NULL("info", vdpa_device_info(d, NULL));
    IS_NULL("device", vdpa_device_name(NULL, &name));
    IS_NULL("name", vdpa_device_name(d, NULL));
    IS_NULL("device", vdpa_device_offered(NULL, &f));
    IS_NULL("features", vdpa_device_offered(d, NULL));
    IS_NULL("device", vdpa_device_negotiated(NULL, &f));
    IS_NULL("features", vdpa_device_negotiated(d, NULL));
    IS_NULL("device", vdpa_device_accept(NULL, &f, NULL));
    IS_NULL("features", vdpa_device_accept(d, NULL, NULL));
    IS_NULL("device", vdpa_device_status(NULL, &byte));
    IS_NULL("status", vdpa_device_status(d, NULL));
    IS_NULL("device", vdpa_device_write_status(NULL, 1));
    IS_NULL("device", vdpa_device_reset(NULL, 0));
    IS_NULL("device", vdpa_device_read_config(NULL, 0, &byte, 1));
    IS_NULL("to", vdpa_device_read_config(d, 0, NULL, 1));
    IS_NULL("device", vdpa_device_write_config(NULL, 0, &byte, 1));
    IS_NULL("from", vdpa_device_write_config(d, 0, NULL, 1));
    IS_NULL("device", vdpa_device_config_generation(NULL, &number));
    IS_NULL("generation", vdpa_device_config_generation(d, NULL));
    IS_NULL("device", vdpa_device_suspend(NULL, 0));
    IS_NULL("device", vdpa_device_resume(NULL));
    IS_NULL("device", vdpa_device_stats(NULL, each, NULL));
    IS_NULL("each", vdpa_device_stats(d, NULL, NULL));
    IS_NULL("device", vdpa_device_close(NULL, 0));
    IS_NULL("device", vdpa_device_abandon(NULL));
    IS_NULL("device", vdpa_device_events_fd(NULL, &fd));
    IS_NULL("fd", vdpa_device_events_fd(d, NULL));
    IS_NULL("device", vdpa_device_next_event(NULL, &event));
    IS_NULL("event", vdpa_device_next_event(d, NULL));
    IS_NULL("device", vdpa_device_events_dropped(NULL, &dropped));
    IS_NULL("count", vdpa_device_events_dropped(d, NULL));
    OK(vdpa_device_events_dropped(d, &dropped));
    IS(dropped == 0);
    IS_NULL("device", vdpa_device_map(NULL, &m));
    IS_NULL("mapping", vdpa_device_map(d, NULL));
    IS_NULL("device", vdpa_device_unmap(NULL, 0, 0, 1, 0));
    IS_NULL("device", vdpa_device_set_dirty_log(NULL, 0, NULL, 0));
    IS_NULL("device", vdpa_device_queue_limits(NULL, 0, &limits));
    IS_NULL("limits", vdpa_device_queue_limits(d, 0, NULL));
    IS_NULL("device", vdpa_device_assign_group(NULL, 0, 0));
    IS_NULL("device", vdpa_device_start_queue(NULL, 0, &s, NULL, -1, -1, NULL));
    IS_NULL("setup", vdpa_device_start_queue(d, 0, NULL, NULL, -1, -1, NULL));
    IS_NULL("device", vdpa_device_replace_call(NULL, 0, -1));
    IS_NULL("device", vdpa_device_enable_queue(NULL, 0, 1));
    IS_NULL("device", vdpa_device_stop_queue(NULL, 0, 0, &state));
    IS_NULL("state", vdpa_device_stop_queue(d, 0, 0, NULL));
    IS_NULL("device", vdpa_device_queue_state(NULL, 0, &state));
    IS_NULL("state", vdpa_device_queue_state(d, 0, NULL));
    IS_NULL("device", vdpa_device_reset_queue(NULL, 0, 0));
    IS_NULL("doorbell", vdpa_doorbell_ring(NULL, 0));
    IS_NULL("doorbell", vdpa_doorbell_page(NULL, &page));
    IS_NULL("doorbell", vdpa_doorbell_eventfd(NULL, &fd));
    IS_NULL("doorbell", vdpa_doorbell_free(NULL));
    closed(d);

    d = live("sim:net", PLAIN, &bell);
    IS_NULL("page", vdpa_doorbell_page(bell, NULL));
    IS_NULL("fd", vdpa_doorbell_eventfd(bell, NULL));
    REFUSED(UNSUPPORTED, "no page of its own", vdpa_doorbell_page(bell, &page));
    REFUSED(UNSUPPORTED, "no eventfd", vdpa_doorbell_eventfd(bell, &fd));
    closed(d);
    OK(vdpa_doorbell_ring(bell, 1)); /* does nothing any more */
    OK(vdpa_doorbell_free(bell));
}

static void strings(void) {
    struct vdpa_registry *r;
    struct vdpa_device *d = NULL, *a, *b;
    const char *name;
    REFUSED(MISUSE, "spec", vdpa_open("sim:net,port=\xff", &d));
    REFUSED(MISUSE, "byte 13", vdpa_open("sim:net,port=\xff", &d));
    REFUSED(MISUSE, "parents: sim, vfio, vhost-user, mdev)", vdpa_open("nothing:net", &d));
    /* Each of them is there, and says itself what it does not find. */
    REFUSED(MISUSE, "no PCI function ffff:ff:1f.7", vdpa_open("vfio:ffff:ff:1f.7", &d));
    REFUSED(IO, "/nowhere/at/all", vdpa_open("vhost-user:/nowhere/at/all,type=net", &d));
    IS(vdpa_last_os_error() == ENOENT);
    REFUSED(MISUSE, "no mediated device 00000000-", vdpa_open("mdev:00000000-0000-0000-0000-000000000000", &d));
    REFUSED(MISUSE, "of=DEVICE", vdpa_open("mdev:slice", &d));
    REFUSED(MISUSE, "net", vdpa_open("sim:nett", &d));
    REFUSED(MISUSE, "mtu", vdpa_open("sim:net,mtuu=9000", &d));
    REFUSED(MISUSE, "mtu", vdpa_open("sim:net,mtu=1", &d));
    REFUSED(MISUSE, "PARENT:WHAT", vdpa_open("", &d));
    REFUSED(MISUSE, "/nowhere/at/all", vdpa_open("sim:net,port=pcap:/nowhere/at/all", &d));
    IS(vdpa_last_os_error() == ENOENT);
    IS(d == NULL); /* nothing was written */
    OK(vdpa_registry_new(&r));
    OK(vdpa_registry_open(r, "sim:net,port=wire:c", &a));
    OK(vdpa_registry_open(r, "sim:net,port=wire:c", &b));
    REFUSED(MISUSE, "wire", vdpa_registry_open(r, "sim:net,port=wire:c", &d));
    IS(vdpa_last_os_error() == 0);
    OK(vdpa_registry_free(r));
    OK(vdpa_device_name(a, &name));
    IS(name[0] != 0);
    closed(a);
    closed(b);
    IS(strcmp(vdpa_version(), "0.1.0") == 0);
    for (int code = VDPA_ERR_BROKEN; code < 0; code++) IS(strncmp(vdpa_error_name(code), "VDPA_ERR_", 9) == 0);
    IS(strcmp(vdpa_error_name(0), "0") == 0 && strcmp(vdpa_error_name(1), "unknown") == 0);
}

static void features_and_status(void) {
    struct vdpa_device *d = opened("sim:net");
    struct vdpa_device_info info;
    struct vdpa_features f = {{PLAIN, 1ull << 63}}, offered, beside = {{FEATURE(17), 0}}, mq = {{PLAIN | FEATURE(22), 0}};
    uint8_t bytes[PAGE], status = 0;
    uint32_t generation;
    OK(vdpa_device_info(d, &info));
    IS(info.device_type == 1 && info.queues >= 2 && info.address_spaces >= 1 && info.config_size < PAGE);
    uint32_t has = VDPA_CAP_DMA_SOFTWARE | VDPA_CAP_SUSPEND | VDPA_CAP_STATS | VDPA_CAP_QUEUE_RESET | VDPA_CAP_QUEUE_PAUSE |
                   VDPA_CAP_QUEUE_ENABLE;
    IS((info.caps & has) == has && !(info.caps & VDPA_CAP_DMA_MAP));
    OK(vdpa_device_offered(d, &offered));
    REFUSED(MISUSE, "127", vdpa_device_accept(d, &f, NULL)); /* not offered */
    IS(offered.words[0] & FEATURE(22));
    REFUSED(MISUSE, "CTRL_VQ", vdpa_device_accept(d, &mq, NULL));
    OK(vdpa_device_accept(d, &mq, &beside));
    REFUSED(MISUSE, "status byte 0x04", vdpa_device_write_status(d, DRIVER_OK));
    REFUSED(MISUSE, "status byte 0x20", vdpa_device_write_status(d, 0x20));
    f.words[1] = 0;
    OK(vdpa_device_accept(d, &f, NULL));
    OK(vdpa_device_write_status(d, DRIVER | FEATURES_OK));
    REFUSED(MISUSE, "reset the device first", vdpa_device_accept(d, &f, NULL));
    OK(vdpa_device_negotiated(d, &f));
    IS(f.words[0] == PLAIN && f.words[1] == 0);
    OK(vdpa_device_status(d, &status));
    IS(status == (DRIVER | FEATURES_OK));

    OK(vdpa_device_read_config(d, 0, bytes, info.config_size));
    OK(vdpa_device_read_config(d, info.config_size, bytes, 0));
    REFUSED(MISUSE, "past the end", vdpa_device_read_config(d, 1, bytes, info.config_size));
    REFUSED(MISUSE, "past the end", vdpa_device_read_config(d, UINT32_MAX, bytes, 2));
    REFUSED(MISUSE, "past the end", vdpa_device_read_config(d, 0, bytes, SIZE_MAX));
    REFUSED(MISUSE, "past the end", vdpa_device_write_config(d, 0, bytes, SIZE_MAX));
    REFUSED(MISUSE, "past the end", vdpa_device_write_config(d, info.config_size, bytes, 1));
    OK(vdpa_device_config_generation(d, &generation));
    closed(d);

    d = opened("sim:net,fault=control.refused:1");
    OK(vdpa_device_accept(d, &f, NULL));
    REFUSED(UNSUPPORTED, "refused the features", vdpa_device_write_status(d, DRIVER | FEATURES_OK));
    closed(d);
    d = opened("sim:net,fault=config.storm:1");
    REFUSED(PEER, "configuration changed", vdpa_device_read_config(d, 0, bytes, 6));
    closed(d);
}

static atomic_int released;
static void release(void *opaque) {
    struct vdpa_device *d = NULL;
    /* From inside of here nothing is allowed, and says so. */
    if (vdpa_open("sim:net", &d) == VDPA_ERR_MISUSE && strstr(vdpa_last_error(), "inside a callback")) {
        free(opaque);
        atomic_fetch_add(&released, 1);
    }
}
static void wait_released(int count) {
    for (int i = 0; i < WAIT && atomic_load(&released) < count; i++) poll(NULL, 0, 1);
    IS(atomic_load(&released) == count);
}

static void mappings(void) {
    struct vdpa_device *d = opened("sim:net");
    struct vdpa_mapping m = whole();
    struct vdpa_dirty_log log = {.bits = NULL, .len = 8};
#define MAP(field, value, words) m = whole(), m.release = release, m.field = value, REFUSED(MISUSE, words, vdpa_device_map(d, &m))
    MAP(memory, NULL, "`mapping->memory` is NULL");
    MAP(len, 0, "is empty or wraps");
    MAP(len, UINT64_MAX, "`mapping->len` is 0xffffffffffffffff");
    MAP(flags, 0, "VDPA_READS or VDPA_WRITES");
    MAP(flags, VDPA_LOGGED, "VDPA_READS or VDPA_WRITES");
    MAP(flags, 8 | VDPA_READS, "nothing else");
    MAP(asid, 99, "address space 99");
    MAP(iova, UINT64_MAX - PAGE, "is empty or wraps");
    MAP(memory, (void *)(UINTPTR_MAX - PAGE), "mapping->len");
    m = whole();
    OK(vdpa_device_map(d, &m));
    MAP(iova, PAGE, "overlap");
    IS(released == 0); /* what was refused is the caller's */
    REFUSED(MISUSE, "mapped", vdpa_device_unmap(d, 0, 1 << 30, PAGE, WAIT));
    REFUSED(MISUSE, "cuts mapping", vdpa_device_unmap(d, 0, 0, PAGE, WAIT));
    REFUSED(MISUSE, "is empty or wraps", vdpa_device_unmap(d, 0, 0, 0, WAIT));
    REFUSED(MISUSE, "address space 7", vdpa_device_unmap(d, 7, 0, LEN, WAIT));
    OK(vdpa_device_unmap(d, 0, 0, LEN, WAIT));

    REFUSED(MISUSE, "`log->bits` is NULL", vdpa_device_set_dirty_log(d, 0, &log, WAIT));
    log.bits = memory, log.len = 0;
    REFUSED(MISUSE, "log->len", vdpa_device_set_dirty_log(d, 0, &log, WAIT));
    log.len = 8;
    REFUSED(MISUSE, "address space 5", vdpa_device_set_dirty_log(d, 5, &log, WAIT));
    log.bits = calloc(1, 8), log.opaque = log.bits, log.release = release;
    OK(vdpa_device_set_dirty_log(d, 0, &log, WAIT));
    OK(vdpa_device_set_dirty_log(d, 0, NULL, WAIT));
    wait_released(1);

    /* Released by an unmap, and by a close. */
    for (int i = 0; i < 2; i++) {
        m = whole(), m.iova = (uint64_t)i << 20, m.len = PAGE, m.release = release;
        m.opaque = m.memory = malloc(PAGE);
        OK(vdpa_device_map(d, &m));
    }
    OK(vdpa_device_unmap(d, 0, 0, PAGE, WAIT));
    wait_released(2);
    closed(d);
    wait_released(3);
}

static void setups(void) {
    struct vdpa_device *d = opened("sim:net");
    struct vdpa_queue_setup s = setup_of(0);
    struct vdpa_queue_state at = {.kind = VDPA_STATE_SPLIT};
    struct vdpa_queue_limits limits;
    int ends[2], event = eventfd(0, EFD_CLOEXEC);
#define START(state, kick, call) vdpa_device_start_queue(d, 0, &s, state, kick, call, NULL)
#define BAD(field, value, words) s = setup_of(0), s.field = value, REFUSED(MISUSE, words, START(NULL, -1, -1))
    OK(vdpa_device_queue_limits(d, 0, &limits));
    IS(limits.max_size >= 16);
    REFUSED(MISUSE, "queue 999", vdpa_device_queue_limits(d, 999, &limits));
    REFUSED(MISUSE, "negotiate features first", START(NULL, -1, -1));
    closed(d);

    d = negotiated("sim:net", PLAIN);
    BAD(size, 0, "size 0");
    BAD(size, 12, "power of two");
    BAD(size, 32768, "size 32768");
    BAD(flags, 2, "setup->flags");
    BAD(descriptor, 8, "not aligned");
    BAD(device, 2 * LEN, "not mapped");
    BAD(driver, 16, "overlap");
    s = setup_of(0);
    REFUSED(MISUSE, "queue 999", vdpa_device_start_queue(d, 999, &s, NULL, -1, -1, NULL));
    at.kind = 3;
    REFUSED(MISUSE, "state->kind", START(&at, -1, -1));
    at.kind = VDPA_STATE_PACKED, at.avail_wrap = 2;
    REFUSED(MISUSE, "state->avail_wrap", START(&at, -1, -1));
    at.avail_wrap = 1, at.used_wrap = 9;
    REFUSED(MISUSE, "state->used_wrap", START(&at, -1, -1));
    at.used_wrap = 1;
    REFUSED(MISUSE, "impossible for a ring", START(&at, -1, -1)); /* of the other format */
    at.kind = VDPA_STATE_SPLIT, at.avail = 40;
    REFUSED(MISUSE, "impossible for a ring", START(&at, -1, -1));
    IS(pipe2(ends, O_CLOEXEC) == 0);
    REFUSED(MISUSE, "`kick_fd` is descriptor -2", START(NULL, -2, -1));
    REFUSED(MISUSE, "`kick_fd` is descriptor 99999", START(NULL, 99999, -1));
    IS(vdpa_last_os_error() == EBADF);
    REFUSED(MISUSE, "pipe", START(NULL, ends[0], -1));
    REFUSED(MISUSE, "`call_fd` is descriptor 99999", START(NULL, -1, 99999));
    REFUSED(MISUSE, "pipe", START(NULL, event, ends[1]));
    REFUSED(MISUSE, "not started", vdpa_device_replace_call(d, 0, event));
    REFUSED(MISUSE, "not started", vdpa_device_enable_queue(d, 0, 1));
    at.kind = VDPA_STATE_SPLIT_AVAIL, at.avail = 0;
    OK(START(&at, event, event));
    REFUSED(MISUSE, "pipe", vdpa_device_replace_call(d, 0, ends[1]));
    OK(vdpa_device_replace_call(d, 0, event));
    REFUSED(MISUSE, "started already", START(NULL, -1, -1));
    REFUSED(MISUSE, "`on` is 0x2", vdpa_device_enable_queue(d, 0, 2));
    REFUSED(MISUSE, "`on` is 0xffffffff", vdpa_device_enable_queue(d, 0, -1));
    OK(vdpa_device_enable_queue(d, 0, 0));
    REFUSED(MISUSE, "queue group 99", vdpa_device_assign_group(d, 99, 0));
    REFUSED(MISUSE, "address space 99", vdpa_device_assign_group(d, 0, 99));
    closed(d);

    d = negotiated("sim:net", PLAIN | FEATURE(NOTIFICATION_DATA));
    s = setup_of(0);
    REFUSED(MISUSE, "carries no data", START(NULL, event, -1));
    closed(d);
    close(ends[0]), close(ends[1]), close(event);
}

static void states(void) {
    struct vdpa_device *d = live("sim:net", PLAIN, NULL);
    struct vdpa_queue_setup s = setup_of(0);
    struct vdpa_queue_state at;
    uint8_t byte = 0;
    REFUSED(MISUSE, "suspend the device first", vdpa_device_queue_state(d, 0, &at));
    REFUSED(MISUSE, "suspend the device first", vdpa_device_resume(d));
    REFUSED(MISUSE, "RING_RESET", vdpa_device_reset_queue(d, 0, WAIT));
    REFUSED(MISUSE, "queue 2", vdpa_device_stop_queue(d, 2, WAIT, &at));
    OK(vdpa_device_stop_queue(d, 0, WAIT, &at));
    IS(at.kind == VDPA_STATE_SPLIT && at.avail == 0 && at.used == 0);
    REFUSED(MISUSE, "not started", vdpa_device_stop_queue(d, 0, WAIT, &at));
    OK(vdpa_device_suspend(d, WAIT));
    REFUSED(MISUSE, "resume the device first", vdpa_device_start_queue(d, 0, &s, &at, -1, -1, NULL));
    REFUSED(MISUSE, "resume the device first", vdpa_device_write_config(d, 0, &byte, 1));
    REFUSED(MISUSE, "not started", vdpa_device_queue_state(d, 0, &at));
    OK(vdpa_device_queue_state(d, 1, &at));
    OK(vdpa_device_resume(d));
    closed(d);

    d = negotiated("sim:net", PLAIN | FEATURE(RING_RESET));
    REFUSED(MISUSE, "start the device first", vdpa_device_suspend(d, WAIT));
    REFUSED(MISUSE, "not started", vdpa_device_reset_queue(d, 0, WAIT));
    OK(vdpa_device_start_queue(d, 0, &s, NULL, -1, -1, NULL));
    OK(vdpa_device_reset_queue(d, 0, WAIT));
    closed(d);

    d = live("sim:net", PLAIN | FEATURE(RING_PACKED), NULL);
    OK(vdpa_device_stop_queue(d, 0, WAIT, &at));
    IS(at.kind == VDPA_STATE_PACKED && at.avail == 0 && at.avail_wrap == 1 && at.used_wrap == 1);
    OK(vdpa_device_start_queue(d, 0, &s, &at, -1, -1, NULL));
    OK(vdpa_device_abandon(d));
}

/* A call that looks once, and the same that waits, of what takes 1 to 50 ms: a machine may be slow enough for the first. */
#define AT_ONCE_OR(once, waiting)                                                                                              \
    do {                                                                                                                       \
        int got = once;                                                                                                        \
        if (got == 0) break;                                                                                                   \
        refused(__LINE__, #once, got, VDPA_ERR_BUSY, "did not end in time");                                                    \
        OK(waiting);                                                                                                           \
    } while (0)

/* What takes long, and what is lost. */
static void slow_and_gone(void) {
    struct vdpa_device *d = live("sim:net,fault=control.slow:1", PLAIN | FEATURE(RING_RESET), NULL);
    struct vdpa_doorbell *bell;
    struct vdpa_queue_state at;
    struct vdpa_event event;
    struct pollfd fds = {.events = POLLIN};
    uint16_t *avail = (uint16_t *)(memory + 5 * PAGE);
    uint8_t byte, bytes[6];
    int count = 0;
    AT_ONCE_OR(vdpa_device_stop_queue(d, 0, 0, &at), vdpa_device_stop_queue(d, 0, WAIT, &at));
    AT_ONCE_OR(vdpa_device_reset_queue(d, 1, 0), vdpa_device_reset_queue(d, 1, WAIT));
    AT_ONCE_OR(vdpa_device_suspend(d, 0), vdpa_device_suspend(d, WAIT));
    AT_ONCE_OR(vdpa_device_reset(d, 0), vdpa_device_reset(d, WAIT));
    AT_ONCE_OR(vdpa_device_close(d, 0), vdpa_device_close(d, WAIT)); /* and it is still there */

    d = opened("sim:net,fault=control.error:1");
    REFUSED(BUSY, "control.error", vdpa_device_reset(d, WAIT));
    REFUSED(BUSY, "control.error", vdpa_device_write_status(d, 0));
    REFUSED(BUSY, "control.error", vdpa_device_close(d, WAIT)); /* and it is still there */
    REFUSED(BUSY, "control.error", vdpa_device_close(d, WAIT));
    OK(vdpa_device_abandon(d));

    /* Its avail index jumps past all that a ring holds. */
    d = live("sim:net", PLAIN, &bell);
    OK(vdpa_device_events_fd(d, &fds.fd));
    IS(vdpa_device_next_event(d, &event) == 0);
    avail[1] = 1000;
    OK(vdpa_doorbell_ring(bell, 1));
    IS(poll(&fds, 1, WAIT) == 1);
    IS(vdpa_device_next_event(d, &event) == 1);
    IS(event.kind == VDPA_EVENT_NEEDS_RESET && event.queue == 1 && event.why[0]);
    OK(vdpa_device_status(d, &byte));
    IS(byte & NEEDS_RESET);
    IS(vdpa_device_stats(d, each, &count) == count && count > 0);
    OK(vdpa_doorbell_free(bell));
    closed(d);

    d = live("sim:net,fault=device.gone:1", PLAIN, &bell);
    OK(vdpa_device_events_fd(d, &fds.fd));
    OK(vdpa_doorbell_ring(bell, 1));
    IS(poll(&fds, 1, WAIT) == 1);
    IS(vdpa_device_next_event(d, &event) == 1 && event.kind == VDPA_EVENT_GONE && event.why[0] == 0);
    REFUSED(GONE, "gone", vdpa_device_status(d, &byte));
    REFUSED(GONE, "gone", vdpa_device_write_status(d, 0));
    REFUSED(GONE, "gone", vdpa_device_reset(d, WAIT));
    REFUSED(GONE, "gone", vdpa_device_read_config(d, 0, bytes, 6));
    REFUSED(GONE, "gone", vdpa_device_suspend(d, WAIT));
    REFUSED(GONE, "gone", vdpa_device_stop_queue(d, 0, WAIT, &at));
    OK(vdpa_device_unmap(d, 0, 0, LEN, WAIT)); /* the memory can be had back all the same */
    OK(vdpa_doorbell_free(bell));
    closed(d);

    d = opened("sim:blk,size=1M");
    REFUSED(MISUSE, "address space 1", vdpa_device_assign_group(d, 0, 1));
    closed(d);
}

static void calls_from_a_callback(void *opaque, const char *name, uint64_t value) {
    (void)name, (void)value;
    uint8_t status;
    REFUSED(MISUSE, "inside a callback", vdpa_device_status(opaque, &status));
    REFUSED(MISUSE, "inside a callback", vdpa_device_close(opaque, 0));
}
static void *of_another_thread(void *opaque) {
    (void)opaque;
    IS(vdpa_last_error()[0] == 0 && vdpa_last_os_error() == 0);
    IS_NULL("device", vdpa_device_resume(NULL));
    return NULL;
}
/* The system has no descriptor left. */
static void no_descriptors(void) {
    struct vdpa_device *d = negotiated("sim:net", PLAIN), *other = NULL;
    struct vdpa_queue_setup s = setup_of(0);
    struct rlimit limit, none;
    int event = eventfd(0, EFD_CLOEXEC);
    IS(getrlimit(RLIMIT_NOFILE, &limit) == 0);
    none = limit, none.rlim_cur = 3;
    IS(setrlimit(RLIMIT_NOFILE, &none) == 0);
    REFUSED(IO, "eventfd", vdpa_open("sim:net", &other));
    IS(vdpa_last_os_error() == EMFILE && other == NULL);
    REFUSED(IO, "`kick_fd`", vdpa_device_start_queue(d, 0, &s, NULL, event, -1, NULL));
    IS(setrlimit(RLIMIT_NOFILE, &limit) == 0);
    OK(vdpa_device_start_queue(d, 0, &s, NULL, event, -1, NULL));
    closed(d);
    close(event);
}

static void messages(void) {
    struct vdpa_device *d = opened("sim:net");
    struct vdpa_device_info info;
    pthread_t thread;
    IS(vdpa_device_stats(d, calls_from_a_callback, d) > 0);
    REFUSED(MISUSE, "queue group 42", vdpa_device_assign_group(d, 42, 0));
    OK(vdpa_device_info(d, &info)); /* what succeeds leaves the message */
    IS(strstr(vdpa_last_error(), "queue group 42") != NULL);
    IS(pthread_create(&thread, NULL, of_another_thread, NULL) == 0);
    IS(pthread_join(thread, NULL) == 0);
    IS(strstr(vdpa_last_error(), "queue group 42") != NULL);
    closed(d);
}

int main(void) {
    IS(vdpa_last_error()[0] == 0 && vdpa_last_os_error() == 0);
    null_arguments();
    strings();
    features_and_status();
    mappings();
    setups();
    states();
    slow_and_gone();
    no_descriptors();
    messages();
    printf("%d checked, %d failed\n", checked, failed);
    return failed != 0;
}
