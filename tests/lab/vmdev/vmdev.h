/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * vmdev: mediated devices that are virtio functions, for the lab.
 *
 *   user ── read, write ──▶ device.c ──▶ function.c ──▶ queue.c ──▶ blk.c, net.c ──▶ queue.c ──▶ split.c, packed.c
 *     ◀───── eventfds ──────── device.c ◀──── calls ───────┘                           └── vfio_dma_rw() ──▶ memory
 *
 * A kick is a write to BAR 0, and what it asks for is done before that write returns, by who wrote. What a driver
 * writes is read once and then checked: a ring that is not as it must be makes the device need a reset.
 */
#ifndef VMDEV_H
#define VMDEV_H

#include <linux/mdev.h>
#include <linux/mutex.h>
#include <linux/types.h>
#include <linux/vfio.h>

#define VM_CONFIG_LEN 256
#define VM_BAR_LEN 0x4000
/* One for the configuration, and one for each queue. */
#define VM_VECTORS 3
#define VM_QUEUES 2
#define VM_QUEUE_MAX 256
/* The device's own configuration: no type here has more. */
#define VM_DEVICE_CONFIG_LEN 96
#define VM_FEATURE_WORDS 4

struct eventfd_ctx;
struct vm_device;

/* A buffer of the driver's. */
struct vm_segment {
	u64 addr;
	u32 len;
	bool writable;
};

/* What a driver has made available: a private copy, whatever it writes to its ring from now on. */
struct vm_chain {
	u16 id;
	/* How far the ring goes on behind it: an entry of a split ring, descriptors of a packed one. */
	u16 slots;
	u16 count;
	/* Bytes, together at most 2^32. */
	u64 readable;
	u64 writable;
	struct vm_segment segment[VM_QUEUE_MAX];
};

struct vm_queue {
	bool enabled;
	u16 size;
	u16 vector;
	u64 desc;
	u64 driver;
	u64 device;
	/* Where the next chain is, and where the next used one goes; the wraps are a packed ring's. */
	u16 avail;
	u16 used;
	bool avail_wrap;
	bool used_wrap;
	/* Something was used since the driver was last called. */
	bool owes_call;
};

/* What a type is, and does with its queues. */
struct vm_personality {
	u16 device_id;
	u16 subsystem_id;
	u8 class_base;
	u8 class_sub;
	u64 features;
	/* The feature that the second queue comes with; 0: it is always there. */
	u64 second_queue_needs;
	/* Its configuration and its store: before anybody can have it, and after everybody had it. */
	int (*init)(struct vm_device *s);
	void (*release)(struct vm_device *s);
	/* With the lock. A negative number where memory is not reached, or a ring is not as it must be. */
	int (*serve)(struct vm_device *s, unsigned int queue);
};

struct vm_device {
	struct vfio_device vdev;
	const struct vm_personality *personality;
	/* Over all below, but for what irq_lock is over, which may be taken inside. */
	struct mutex lock;
	u8 config[VM_CONFIG_LEN];
	u8 device_config[VM_DEVICE_CONFIG_LEN];
	u32 device_feature_select;
	u32 driver_feature_select;
	u32 driver_features[VM_FEATURE_WORDS];
	u8 status;
	u8 isr;
	u16 config_vector;
	u16 queue_select;
	struct vm_queue queue[VM_QUEUES];
	struct vm_chain chain;
	/* A disk, or room for a packet. */
	u8 *store;

	struct mutex irq_lock;
	struct eventfd_ctx *vector[VM_VECTORS];
	struct eventfd_ctx *request;
};

extern const struct vm_personality vm_blk;
extern const struct vm_personality vm_net;

/* device.c */
extern const struct vfio_device_ops vm_device_ops;
void vm_call(struct vm_device *s, u16 vector);

/* function.c: registers. */
void vm_function_init(struct vm_device *s);
void vm_reset(struct vm_device *s);
u32 vm_config_read(struct vm_device *s, u32 at, u32 bytes);
void vm_config_write(struct vm_device *s, u32 at, u32 bytes, u32 value);
u32 vm_bar_read(struct vm_device *s, u32 at, u32 bytes);
void vm_bar_write(struct vm_device *s, u32 at, u32 bytes, u32 value);
void vm_show_msix(struct vm_device *s, bool on);
bool vm_accepted(const struct vm_device *s, unsigned int bit);

/* queue.c: what serves a queue takes a chain, moves its bytes, and puts it back. */
void vm_kick(struct vm_device *s, unsigned int queue);
int vm_take(struct vm_device *s, struct vm_queue *q);
int vm_put(struct vm_device *s, struct vm_queue *q, u32 written);
int vm_from_chain(struct vm_device *s, u64 at, void *to, u32 len);
int vm_to_chain(struct vm_device *s, u64 at, void *from, u32 len);
/* Memory, and a descriptor more, for the two kinds of rings. */
int vm_fetch(struct vm_device *s, u64 addr, void *to, u32 len);
int vm_store(struct vm_device *s, u64 addr, void *from, u32 len);
int vm_add(struct vm_chain *c, u16 limit, u64 addr, u32 len, u16 flags);

/* split.c and packed.c. take: 1 when there is a chain, 0 when there is none. wants_call: 1, 0. */
int vm_split_take(struct vm_device *s, struct vm_queue *q);
int vm_split_put(struct vm_device *s, struct vm_queue *q, u32 written);
int vm_split_wants_call(struct vm_device *s, struct vm_queue *q);
int vm_packed_take(struct vm_device *s, struct vm_queue *q);
int vm_packed_put(struct vm_device *s, struct vm_queue *q, u32 written);
int vm_packed_wants_call(struct vm_device *s, struct vm_queue *q);

#endif
