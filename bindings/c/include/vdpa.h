/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
 *
 * vdpa.h: virtio devices with a data path of their own, for VMMs and tools in C. Generated; do not edit.
 *
 * Life of a device, as a VMM drives it for its guest:
 *
 *     vdpa_open("sim:net", &dev)
 *     vdpa_device_map(dev, &mapping)             the guest's memory, once for each region
 *     vdpa_device_offered(), _accept()           what the guest chose
 *     vdpa_device_write_status(), _status()      every byte that the guest writes; read back what it reads
 *     vdpa_device_start_queue(..., kick, call)   each queue, between FEATURES_OK and DRIVER_OK
 *     poll(vdpa_device_events_fd())              then vdpa_device_next_event() until it returns 0
 *     vdpa_device_unmap(), vdpa_device_close()
 *
 * Returns. Every function that returns int returns 0, or what its comment says that it counts; below 0, VDPA_ERR_*. What went
 * wrong, with names and numbers, is in vdpa_last_error(), which each thread has for itself. What a call was to write is written
 * on success alone.
 *
 * Arguments. NULL is an error (VDPA_ERR_MISUSE, with the name of the argument), but where a comment says what NULL stands for.
 * A pointer that is not NULL has to be valid and aligned, and what it points to is nobody else's to write during the call;
 * a handle that was closed or freed is not valid. Nothing of that can be checked: it is undefined behaviour. Strings are UTF-8
 * and end with NUL. Timeouts are in milliseconds; with 0 a call looks once: what was begun goes on, and the same call asks
 * again. But for vdpa_device_unmap() and vdpa_device_set_dirty_log(): if their timeout passes, the device is broken.
 *
 * Threads. A handle that a function takes as a pointer to const may be in use by several threads at the same time, but for
 * vdpa_device_next_event(), which one thread calls; one that it takes without const is given up, and no other call may be
 * using it. Errors are of the thread. Calls wait for the device only if they take a timeout. For the system, and for a call of
 * another thread that maps, unmaps or sets a log in the same address space, wait also vdpa_device_map(), and what opens and
 * what lets go of a device: their comments say it. A device has threads of its own, which inherit their signal masks: who wants
 * signals elsewhere blocks them before it opens one. After fork() the child may not use the handles of its parent; exec() is
 * fine.
 *
 * Callbacks may run on any thread, must neither wait nor unwind nor longjmp out, and must not call this library: such a call
 * is refused with VDPA_ERR_MISUSE.
 *
 * Panics. A bug in the library does not unwind into C: the call returns VDPA_ERR_PANIC, and the handles that it took stay. What
 * frees a handle is done with it once that has begun, and returns 0 whatever happens on the way.
 */


#ifndef VDPA_H
#define VDPA_H

#include <stdint.h>
#include <stddef.h>

// The first number of the version of this header. While it is 0, a second number that differs is another interface;
// from 1 on, a first number that differs is. The name that a program is linked with says the same: libvdpa.so.0.1.
#define VDPA_VERSION_MAJOR 0

// The second number of the version of this header.
#define VDPA_VERSION_MINOR 1

// The third number of the version of this header.
#define VDPA_VERSION_PATCH 0

// The call is not legal: an argument, or the state the device is in. The same call fails again.
#define VDPA_ERR_MISUSE (-1)

// The device or the driver broke the rules.
#define VDPA_ERR_PEER (-2)

// The device cannot do this.
#define VDPA_ERR_UNSUPPORTED (-3)

// Something else is under way, or did not end in time, and goes on. The same call may succeed later.
#define VDPA_ERR_BUSY (-4)

// The system refused; vdpa_last_os_error() has its errno.
#define VDPA_ERR_IO (-5)

// The device is gone. Nothing but closing it helps, but vdpa_device_unmap() gives memory back as before.
#define VDPA_ERR_GONE (-6)

// The call failed, and what it was to lend is held all the same: a mapping that was refused and that the device does not
// let go of, or a log that counts while the one before is still written. It must not be freed before its release callback
// ran, which may be never; without a callback it is never the caller's again.
#define VDPA_ERR_KEPT (-7)

// A bug of this library: it stopped half-way in the call. The handle stays, also where the call was to give it up, and the
// device can be closed; nothing else about it is known.
#define VDPA_ERR_PANIC (-8)

// An error of a kind that this header has no name for.
#define VDPA_ERR_OTHER (-9)

// The device is broken: it does not answer as it must, or did not let go of memory in time. Nothing but closing it helps, and
// nothing is given back before: what is mapped with a callback when that runs, which may be never; the rest never.
#define VDPA_ERR_BROKEN (-10)

// It is software, and reads what is mapped itself.
#define VDPA_CAP_DMA_SOFTWARE (1 << 0)

// It waits for memory that is not mapped: VDPA_EVENT_MISS.
#define VDPA_CAP_PAGE_REQUESTS (1 << 1)

// An IOMMU translates for it: what is mapped has to fit its pages.
#define VDPA_CAP_DMA_MAP (1 << 2)

// vdpa_device_assign_group().
#define VDPA_CAP_GROUP_SPACES (1 << 3)

// vdpa_device_reset_queue(), where VIRTIO_F_RING_RESET is negotiated.
#define VDPA_CAP_QUEUE_RESET (1 << 4)

// vdpa_device_stop_queue().
#define VDPA_CAP_QUEUE_PAUSE (1 << 5)

// vdpa_device_enable_queue(), and VDPA_QUEUE_DISABLED.
#define VDPA_CAP_QUEUE_ENABLE (1 << 6)

// vdpa_device_suspend(), vdpa_device_resume() and vdpa_device_queue_state().
#define VDPA_CAP_SUSPEND (1 << 7)

// vdpa_device_stats().
#define VDPA_CAP_STATS (1 << 8)

// Configuration space changed.
#define VDPA_EVENT_CONFIG 1

// The device set DEVICE_NEEDS_RESET: it goes on only after a reset. `queue` is the queue it lost, or -1; `why` says what
// was wrong. One that is read while the status byte does not have the bit is of before a reset that is complete.
#define VDPA_EVENT_NEEDS_RESET 2

// The device waits for memory at `at` of `asid`, for `access`, which is not mapped.
#define VDPA_EVENT_MISS 3

// The device used memory at `at` of `asid`, for `access`, which it may not.
#define VDPA_EVENT_FAULT 4

// The parent asks to let go of the device.
#define VDPA_EVENT_REMOVE_REQUESTED 5

// The device does not answer as it must, or did not let go of memory in time, as `why` says. Nothing but closing it helps.
#define VDPA_EVENT_BROKEN 6

// The device is gone. Nothing but closing it helps.
#define VDPA_EVENT_GONE 7

// Something that this header has no name for; `why` has its words.
#define VDPA_EVENT_OTHER 8

// The device may read what is mapped: what goes from driver to device.
#define VDPA_READS (1 << 0)

// The device may write what is mapped: what goes from device to driver.
#define VDPA_WRITES (1 << 1)

// What the device writes there is logged, at `gpa` and on: see vdpa_device_set_dirty_log().
#define VDPA_LOGGED (1 << 2)

// A split ring: free-running indices.
#define VDPA_STATE_SPLIT 0

// A split ring of which only `avail` is known. The device reads `used` from the used ring when it starts.
#define VDPA_STATE_SPLIT_AVAIL 1

// A packed ring: positions, with their wrap counters.
#define VDPA_STATE_PACKED 2

// The queue runs without effect until vdpa_device_enable_queue() switches it on: needs VDPA_CAP_QUEUE_ENABLE.
#define VDPA_QUEUE_DISABLED (1 << 0)

// A device that is open. All calls that take a pointer to const may be made by several threads at the same time.
struct vdpa_device;

// What kicks a queue: no lock, and for most devices no system call. It may be used by several threads, and outlive the
// device, after which it does nothing.
struct vdpa_doorbell;

// Makes devices by their strings. Devices that are to find each other, as the two ends of "port=wire:NAME" do, are opened
// from one registry.
struct vdpa_registry;

// What a device is, constant while it is open.
struct vdpa_device_info {
    // The virtio device type: VIRTIO_ID_* of linux/virtio_ids.h.
    uint32_t device_type;
    // The PCI vendor id of its maker, or what stands for one.
    uint32_t vendor;
    // Bytes of configuration space.
    uint32_t config_size;
    // How many queues it has at most, with any features.
    uint32_t queues;
    // How many queue groups; at least 1.
    uint32_t groups;
    // How many address spaces; at least 1.
    uint32_t address_spaces;
    // What it can do beyond what every device can: VDPA_CAP_*. There may be bits that this header does not name.
    uint32_t caps;
};

// 128 feature bits: bit n is bit n % 64 of words[n / 64].
struct vdpa_features {
    // Bits 0 to 63, and 64 to 127.
    uint64_t words[2];
};

// Called with each counter of a device: its name, which is valid during the call, and its value. It runs in the thread of
// vdpa_device_stats(), and must not call this library.
typedef void (*vdpa_stat_callback)(void *opaque, const char *name, uint64_t value);

// Something that happened to a device.
struct vdpa_event {
    // VDPA_EVENT_*: what happened. The other fields are 0, -1 or "" where they say nothing.
    uint32_t kind;
    // The queue that it is about, or -1.
    int32_t queue;
    // The address space.
    uint32_t asid;
    // VDPA_READS or VDPA_WRITES, or both: what the device wanted.
    uint32_t access;
    // The device address.
    uint64_t at;
    // What was wrong. Valid until the next call of vdpa_device_next_event() with this device, or its end.
    const char *why;
};

// Called once the library and the device have no access left to memory they were lent. It may run on any thread, one of
// the device's included, inside of any call and after a device was closed; it must not call this library, nor wait.
typedef void (*vdpa_release_callback)(void *opaque);

// Memory to be mapped for a device.
struct vdpa_mapping {
    // Where the device sees it.
    uint64_t iova;
    // How many bytes there are.
    uint64_t len;
    // Where they are in this process. They stay mapped, readable and, with VDPA_WRITES, writable, until they are released.
    void *memory;
    // With VDPA_LOGGED, the guest-physical address of the first byte.
    uint64_t gpa;
    // In which address space; 0 is the one in which all queues are at first.
    uint32_t asid;
    // VDPA_READS and VDPA_WRITES, at least one, and VDPA_LOGGED.
    uint32_t flags;
    // What is called once the memory is released, or NULL. Without it the memory is the caller's again only when
    // vdpa_device_unmap() returned 0.
    vdpa_release_callback release;
    // Handed to `release`, and valid until that ran: also once vdpa_device_unmap() returned 0.
    void *opaque;
};

// A log of what a device writes: a bit for each page of 4 KiB from guest-physical address 0 on, page n in bit n % 8 of byte
// n / 8, set atomically. Who reads takes bits by exchanging what holds them for 0.
struct vdpa_dirty_log {
    // Where the bits are. They stay writable until they are released.
    void *bits;
    // How many bytes there are. Pages beyond are not logged.
    uint64_t len;
    // As for a mapping: what is called once the log is released, or NULL.
    vdpa_release_callback release;
    // Handed to `release`.
    void *opaque;
};

// What a queue can do with the features accepted.
struct vdpa_queue_limits {
    // The largest size, in descriptors; 0 for a queue that does not exist with these features.
    uint32_t max_size;
    // The group that the queue is in.
    uint32_t group;
};

// What a queue needs to start.
struct vdpa_queue_setup {
    // Device address of the descriptor area.
    uint64_t descriptor;
    // Device address of the driver area: the available ring, or the driver's event suppression.
    uint64_t driver;
    // Device address of the device area: the used ring, or the device's event suppression.
    uint64_t device;
    // In descriptors: a power of two for a split ring, any size for a packed one, 1 to 32768.
    uint16_t size;
    // 0 or VDPA_QUEUE_DISABLED.
    uint16_t flags;
};

// Where a queue stands: enough to go on elsewhere.
struct vdpa_queue_state {
    // VDPA_STATE_*: which of the others are of use.
    uint16_t kind;
    // The next entry that the device takes: an index, or a slot below the size.
    uint16_t avail;
    // The next entry that the device marks used: the same.
    uint16_t used;
    // The wrap counter at `avail`, of a packed ring: 0 or 1.
    uint8_t avail_wrap;
    // The wrap counter at `used`, of a packed ring: 0 or 1.
    uint8_t used_wrap;
};

// A page of a device that holds doorbells and nothing else, which a guest can be given.
struct vdpa_doorbell_page {
    // Where the page begins in the file, in bytes.
    uint64_t offset;
    // The file to map, shared and for writing. It is the doorbell's: valid until that is freed. What is mapped stays, and
    // with it the device's file: a guest that has the page rings on after the device was closed, and a device of VFIO is not
    // free for others before the page is unmapped.
    int fd;
    // Where in the page the doorbell is, in bytes.
    uint32_t at;
};

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

// The version of the library that is loaded, "0.1.0": a constant string.
const char *vdpa_version(void);

// The name of an error code, "VDPA_ERR_BUSY": a constant string. Of any other number: "0" or "unknown".
const char *vdpa_error_name(int code);

// The message of the last call on this thread that failed, with the names and numbers that it is about; "" if none did.
// It is valid until the next call on this thread that fails, or until the thread ends. A call that succeeds leaves it, unless
// a callback that ran in it made a call, which is refused.
const char *vdpa_last_error(void);

// The errno beneath the last call on this thread that failed; 0 if the system had no part in it.
int vdpa_last_os_error(void);

// Makes a registry. It is freed by vdpa_registry_free().
//
// registry: where its handle is written
int vdpa_registry_new(struct vdpa_registry **registry);

// Frees a registry. Devices that were opened from it stay.
int vdpa_registry_free(struct vdpa_registry *registry);

// Opens the device that a string names: "PARENT:WHAT[,key=value...]", as in "sim:net,mac=52:54:00:00:00:01". What is wrong
// with a string, and what is legal there, is in the message. The device is let go of by vdpa_device_close(). It takes what
// the system takes to open the device.
//
// registry: may be used by several threads at the same time
//
// device: where its handle is written
int vdpa_registry_open(const struct vdpa_registry *registry,
                       const char *spec,
                       struct vdpa_device **device);

// Opens a device as vdpa_registry_open() does, from a registry that no other device knows.
int vdpa_open(const char *spec, struct vdpa_device **device);

// What the device is.
int vdpa_device_info(const struct vdpa_device *device, struct vdpa_device_info *info);

// The name of the device within its parent.
//
// name: where the string is written, which is the device's and valid until that is closed
int vdpa_device_name(const struct vdpa_device *device, const char **name);

// The features that the device offers.
int vdpa_device_offered(const struct vdpa_device *device, struct vdpa_features *features);

// The features that hold since FEATURES_OK; none before.
int vdpa_device_negotiated(const struct vdpa_device *device, struct vdpa_features *features);

// Takes the features that the driver chose. Comes before FEATURES_OK, perhaps several times; the last one counts, also
// when it is refused.
//
// handled: features that the caller handles itself, which the device does not see, and with which `features` have to go
// together: a VMM that keeps the control queue to itself accepts MQ, and CTRL_VQ here. NULL: none
int vdpa_device_accept(const struct vdpa_device *device,
                       const struct vdpa_features *features,
                       const struct vdpa_features *handled);

// The status byte, as the driver reads it: VIRTIO_CONFIG_S_* of linux/virtio_config.h. 0 once a reset is complete.
int vdpa_device_status(const struct vdpa_device *device,
                       uint8_t *status);

// Writes the status byte, as a driver does: any byte, in any order. Never waits, so that a guest's processor may be behind
// it: a reset or a suspend that it begins is complete when vdpa_device_status() says so. What is refused a driver sees in
// the bits that are not set.
int vdpa_device_write_status(const struct vdpa_device *device,
                             uint8_t status);

// Resets the device and waits until that is complete. Legal at any time, also while another thread waits for something
// else, which that is then told. Mappings stay.
int vdpa_device_reset(const struct vdpa_device *device,
                      uint32_t timeout_ms);

// Reads configuration space, as it stood at one moment. What it holds is little-endian.
//
// at: offset in bytes
//
// to: room for len bytes; filled completely, or not at all
int vdpa_device_read_config(const struct vdpa_device *device, uint32_t at, void *to, size_t len);

// Writes configuration space.
//
// at: offset in bytes
//
// from: len bytes
int vdpa_device_write_config(const struct vdpa_device *device,
                             uint32_t at,
                             const void *from,
                             size_t len);

// A number that changes with the configuration. A device without one answers VDPA_ERR_UNSUPPORTED.
int vdpa_device_config_generation(const struct vdpa_device *device, uint32_t *generation);

// Stops the device as a whole, without its driver seeing it: on return it touches nothing, and keeps everything. If it is
// not stopped in time, that goes on, and the same call waits for it again.
int vdpa_device_suspend(const struct vdpa_device *device,
                        uint32_t timeout_ms);

// Lets a device go on that vdpa_device_suspend() stopped. Kicks that came meanwhile are not lost.
int vdpa_device_resume(const struct vdpa_device *device);

// Reports every counter of the device, and returns how many there are.
//
// opaque: handed to the callback
int vdpa_device_stats(const struct vdpa_device *device, vdpa_stat_callback each, void *opaque);

// Resets the device, waits for that, and lets go of it. Once it returned 0 the handle is no more; before, no other call
// with it may be under way. If it fails, whatever the code, the handle stays, and can be closed again, or abandoned. A
// device that is broken or gone is let go of. A bug that shows in the letting go is told of on standard error, and is no
// reason to fail.
//
// What is still mapped is released, by the callbacks it was mapped with. They may run a moment later, on another thread;
// those of memory that the device does not let go of never do.
//
// timeout_ms: of the reset. What the system takes to unmap comes on top, and for a simulated device with I/O that does not
// end, up to half a minute for that
int vdpa_device_close(struct vdpa_device *device,
                      uint32_t timeout_ms);

// Lets go of a device without waiting for its reset, which is begun: for a device that cannot be closed in time. The handle
// is no more once it returned 0; it fails only where it is not legal, with NULL or from inside of a callback. What is mapped
// is released as by vdpa_device_close(), and what comes on top of its timeout comes here too.
int vdpa_device_abandon(struct vdpa_device *device);

// The descriptor that is readable (POLLIN) while events wait. It is the device's: valid until that is closed, to be polled
// and nothing else.
int vdpa_device_events_fd(const struct vdpa_device *device,
                          int *fd);

// Takes the next event: returns 1, or 0 if none waits. Events that say the same are told once until they are read, and of
// VDPA_EVENT_MISS and VDPA_EVENT_FAULT 512 each wait at most: vdpa_device_events_dropped() counts the rest. One thread reads
// the events of a device, since the next one takes the words of the last.
int vdpa_device_next_event(const struct vdpa_device *device,
                           struct vdpa_event *event);

// How many misses and faults found no room since the device was opened: a count that only grows.
int vdpa_device_events_dropped(const struct vdpa_device *device, uint64_t *count);

// Maps memory for the device. Legal at any time, beside any other call. It waits for the system, which may have to pin the
// memory, and for another thread that unmaps or sets the log of the same address space, as long as that waits.
//
// On 0 the memory is lent: it may be freed when vdpa_device_unmap() returned 0 for it, or once its release callback ran,
// whichever is first, and not before. The callback runs once, also if vdpa_device_unmap() returned 0, and then perhaps later;
// but never for memory that the device does not let go of, which is never the caller's again. If that shows before the device
// is closed, VDPA_EVENT_BROKEN tells; if it shows in that, nothing does: no caller can count on the callback.
//
// On an error the callback does not run, and the memory is the caller's; but for VDPA_ERR_KEPT and VDPA_ERR_PANIC, after
// which it may be freed only once the callback ran.
//
// mapping: it is not kept
int vdpa_device_map(const struct vdpa_device *device,
                    const struct vdpa_mapping *mapping);

// Unmaps what is mapped in a range, which has to hold each mapping whole. On 0 the device does not touch it any more, and
// the memory may be freed. Legal also once the device is gone, but not once it is broken.
//
// On an error nothing may be freed but what is released by its callback. A device that does not let go in time is broken
// from then on, and this answers VDPA_ERR_BROKEN: the same call does not succeed later. What it has in flight can be enough
// with a timeout of 0.
//
// len: of the range, in bytes
//
// timeout_ms: for what the device has in flight. What the system takes to unmap comes on top, as does another map or unmap
// of the address space that is at work
int vdpa_device_unmap(const struct vdpa_device *device,
                      uint32_t asid,
                      uint64_t iova,
                      uint64_t len,
                      uint32_t timeout_ms);

// Has what the device writes in an address space logged, where it is mapped with VDPA_LOGGED: on return every later write
// is. The log of before is not written any more when this returned 0, and is then released.
//
// A device that goes on with the log of before beyond the timeout is broken from then on, as by vdpa_device_unmap(): this
// answers VDPA_ERR_KEPT, the new log counts and is lent, and neither may be freed before its callback ran; with NULL it
// answers VDPA_ERR_BROKEN.
//
// log: it is not kept, but for what it points to, which is lent as with vdpa_device_map(). NULL: nothing is logged any more
int vdpa_device_set_dirty_log(const struct vdpa_device *device,
                              uint32_t asid,
                              const struct vdpa_dirty_log *log,
                              uint32_t timeout_ms);

// What a queue can do with the features accepted.
int vdpa_device_queue_limits(const struct vdpa_device *device,
                             uint16_t queue,
                             struct vdpa_queue_limits *limits);

// Puts a queue group into an address space, while none of its queues is started. All are in the first one at the start,
// and after each reset.
int vdpa_device_assign_group(const struct vdpa_device *device,
                             uint32_t group,
                             uint32_t asid);

// Starts a queue, after FEATURES_OK. Its three areas have to be mapped by now.
//
// state: where it goes on; NULL: at the beginning of a fresh ring
//
// kick_fd: an eventfd that kicks the queue when written, or -1. It is duplicated, so it can be closed; it is not read, but
// to keep its counter from being full
//
// call_fd: an eventfd that the device writes to call the driver, or -1 for a driver that polls. It is duplicated, and made
// non-blocking, which the caller's then is as well
//
// doorbell: where a handle is written that kicks the queue whatever kick_fd is, freed by vdpa_doorbell_free(). NULL: not
// wanted
int vdpa_device_start_queue(const struct vdpa_device *device,
                            uint16_t queue,
                            const struct vdpa_queue_setup *setup,
                            const struct vdpa_queue_state *state,
                            int kick_fd,
                            int call_fd,
                            struct vdpa_doorbell **doorbell);

// Replaces the call of a running queue. On 0 the old one is unused, and the new one was raised once.
//
// call_fd: as for vdpa_device_start_queue()
int vdpa_device_replace_call(const struct vdpa_device *device,
                             uint16_t queue,
                             int call_fd);

// Switches a running queue on (1) or off (0). One that is off runs on without effect: a network device discards what is
// sent, and takes no receive buffer.
int vdpa_device_enable_queue(const struct vdpa_device *device,
                             uint16_t queue,
                             int on);

// Stops a queue and takes its state, with which it can be started again, here or elsewhere. If it is not stopped in time,
// that goes on, and the same call waits for it again.
int vdpa_device_stop_queue(const struct vdpa_device *device,
                           uint16_t queue,
                           uint32_t timeout_ms,
                           struct vdpa_queue_state *state);

// Where a queue stands, while the device is suspended.
int vdpa_device_queue_state(const struct vdpa_device *device,
                            uint16_t queue,
                            struct vdpa_queue_state *state);

// Resets one queue; its state is lost. If it is not reset in time, that goes on, and the same call waits for it again: with
// a timeout of 0 a guest's processor may be behind it.
int vdpa_device_reset_queue(const struct vdpa_device *device,
                            uint16_t queue,
                            uint32_t timeout_ms);

// Kicks the queue.
//
// data: the index of the queue, or the notification data where VIRTIO_F_NOTIFICATION_DATA is negotiated
int vdpa_doorbell_ring(const struct vdpa_doorbell *doorbell,
                       uint32_t data);

// The page of the doorbell's own. VDPA_ERR_UNSUPPORTED if it has none: then the guest's kicks are trapped, and ring it.
int vdpa_doorbell_page(const struct vdpa_doorbell *doorbell,
                       struct vdpa_doorbell_page *page);

// The eventfd that kicks the queue when written, for ioeventfd and vhost. It is the doorbell's: valid until that is freed.
// VDPA_ERR_UNSUPPORTED if it is none: then a kick_fd of vdpa_device_start_queue() serves.
int vdpa_doorbell_eventfd(const struct vdpa_doorbell *doorbell,
                          int *fd);

// Frees a doorbell. The queue runs on.
int vdpa_doorbell_free(struct vdpa_doorbell *doorbell);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* VDPA_H */
