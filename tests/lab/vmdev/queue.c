// SPDX-License-Identifier: GPL-2.0-only
/* What both kinds of rings have: chains, the bytes behind them, and who is told. */
#include <linux/pci.h>
#include <linux/sched/signal.h>
#include <linux/unaligned.h>
#include <uapi/linux/virtio_config.h>
#include <uapi/linux/virtio_pci.h>
#include <uapi/linux/virtio_ring.h>

#include "vmdev.h"

/* virtio 1.4 §2.7.5.2 and §2.8.17: what all buffers of a chain have at most. */
#define CHAIN_MAX (1ULL << 32)
/* The bit of the ISR status beside VIRTIO_PCI_ISR_CONFIG, virtio 1.4 §4.1.4.5. */
#define ISR_QUEUE 1

int vm_fetch(struct vm_device *s, u64 addr, void *to, u32 len)
{
	return vfio_dma_rw(&s->vdev, addr, to, len, false);
}

int vm_store(struct vm_device *s, u64 addr, void *from, u32 len)
{
	return vfio_dma_rw(&s->vdev, addr, from, len, true);
}

/* One more descriptor of a chain. */
int vm_add(struct vm_chain *c, u16 limit, u64 addr, u32 len, u16 flags)
{
	bool writable = flags & VRING_DESC_F_WRITE;

	/* Tables were not negotiated; what is read comes before what is written; and nobody goes round in circles. */
	if (flags & VRING_DESC_F_INDIRECT || c->count >= limit || c->count >= VM_QUEUE_MAX)
		return -EINVAL;
	if (c->count && c->segment[c->count - 1].writable && !writable)
		return -EINVAL;
	if (c->readable + c->writable + len > CHAIN_MAX)
		return -EINVAL;
	c->segment[c->count++] = (struct vm_segment) { .addr = addr, .len = len, .writable = writable };
	if (writable)
		c->writable += len;
	else
		c->readable += len;
	return 0;
}

/* Moves bytes between memory and the part of the chain that is read, or that is written, from byte `at` of it on. */
static int move(struct vm_device *s, bool writable, u64 at, u8 *bytes, u32 len)
{
	const struct vm_chain *c = &s->chain;
	unsigned int i;
	int ret;

	for (i = 0; i < c->count && len; i++) {
		const struct vm_segment *segment = &c->segment[i];
		u32 now;

		if (segment->writable != writable)
			continue;
		if (at >= segment->len) {
			at -= segment->len;
			continue;
		}
		now = min_t(u64, len, segment->len - at);
		ret = vfio_dma_rw(&s->vdev, segment->addr + at, bytes, now, writable);
		if (ret)
			return ret;
		bytes += now;
		len -= now;
		at = 0;
		cond_resched();
	}
	return len ? -EINVAL : 0;
}

int vm_from_chain(struct vm_device *s, u64 at, void *to, u32 len)
{
	return move(s, false, at, to, len);
}

int vm_to_chain(struct vm_device *s, u64 at, void *from, u32 len)
{
	return move(s, true, at, from, len);
}

/* The next chain, into s->chain; 0 where there is none. It is taken again until it is put back. */
int vm_take(struct vm_device *s, struct vm_queue *q)
{
	struct vm_chain *c = &s->chain;

	/* Nobody waits for who is killed. */
	if (fatal_signal_pending(current))
		return 0;
	cond_resched();
	c->count = 0;
	c->readable = 0;
	c->writable = 0;
	return vm_accepted(s, VIRTIO_F_RING_PACKED) ? vm_packed_take(s, q) : vm_split_take(s, q);
}

/* Gives the chain that was taken back as used. */
int vm_put(struct vm_device *s, struct vm_queue *q, u32 written)
{
	q->owes_call = true;
	return vm_accepted(s, VIRTIO_F_RING_PACKED) ? vm_packed_put(s, q, written) : vm_split_put(s, q, written);
}

static int call(struct vm_device *s, struct vm_queue *q)
{
	int wants;

	if (!q->owes_call)
		return 0;
	q->owes_call = false;
	/* What was used is to be seen before it is asked whether anybody is to be told: virtio 1.4 §2.7.7.2, §2.8.14. */
	smp_mb();
	wants = vm_accepted(s, VIRTIO_F_RING_PACKED) ? vm_packed_wants_call(s, q) : vm_split_wants_call(s, q);
	if (wants <= 0)
		return wants;
	s->isr |= ISR_QUEUE;
	vm_call(s, q->vector);
	return 0;
}

/* Rings are of no use any more until a reset, and the driver is told: virtio 1.4 §2.1.2. */
static void broken(struct vm_device *s)
{
	s->status |= VIRTIO_CONFIG_S_NEEDS_RESET;
	s->isr |= VIRTIO_PCI_ISR_CONFIG;
	vm_call(s, s->config_vector);
}

void vm_kick(struct vm_device *s, unsigned int queue)
{
	unsigned int i;
	int ret;

	if (queue >= VM_QUEUES || !s->queue[queue].enabled)
		return;
	if (!(s->status & VIRTIO_CONFIG_S_DRIVER_OK) || s->status & VIRTIO_CONFIG_S_NEEDS_RESET)
		return;
	if (!(get_unaligned_le16(s->config + PCI_COMMAND) & PCI_COMMAND_MASTER))
		return;
	ret = s->personality->serve(s, queue);
	for (i = 0; i < VM_QUEUES && !ret; i++)
		ret = call(s, &s->queue[i]);
	if (ret)
		broken(s);
}
