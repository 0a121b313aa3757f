// SPDX-License-Identifier: GPL-2.0-only
/* Packed rings, virtio 1.4 §2.8. */
#include <uapi/linux/virtio_ring.h>

#include "vmdev.h"

#define AVAIL BIT(VRING_PACKED_DESC_F_AVAIL)
#define USED BIT(VRING_PACKED_DESC_F_USED)
#define EVENT_FLAGS offsetof(struct vring_packed_desc_event, flags)
#define EVENT_MODE 3

static u64 place(const struct vm_queue *q, u16 at)
{
	return q->desc + sizeof(struct vring_packed_desc) * at;
}

static void advance(const struct vm_queue *q, u16 *at, bool *wrap, u16 slots)
{
	*at += slots;
	if (*at >= q->size) {
		*at -= q->size;
		*wrap = !*wrap;
	}
}

int vm_packed_take(struct vm_device *s, struct vm_queue *q)
{
	struct vm_chain *c = &s->chain;
	struct vring_packed_desc d;
	__le16 word;
	u16 at = q->avail, flags;
	bool wrap = q->avail_wrap;
	int ret;

	ret = vm_fetch(s, place(q, at) + offsetof(struct vring_packed_desc, flags), &word, sizeof(word));
	if (ret)
		return ret;
	flags = le16_to_cpu(word) & (AVAIL | USED);
	if (flags != (wrap ? AVAIL : USED))
		return 0;
	/* Pairs with the driver's barrier before it makes the first descriptor available, all others before. */
	smp_rmb();
	do {
		ret = vm_fetch(s, place(q, at), &d, sizeof(d));
		if (ret)
			return ret;
		flags = le16_to_cpu(d.flags);
		ret = vm_add(c, q->size, le64_to_cpu(d.addr), le32_to_cpu(d.len), flags);
		if (ret)
			return ret;
		c->id = le16_to_cpu(d.id);
		advance(q, &at, &wrap, 1);
	} while (flags & VRING_DESC_F_NEXT);
	c->slots = c->count;
	return 1;
}

int vm_packed_put(struct vm_device *s, struct vm_queue *q, u32 written)
{
	u16 flags = (q->used_wrap ? AVAIL | USED : 0) | (written ? VRING_DESC_F_WRITE : 0);
	struct vring_packed_desc d = {
		.len = cpu_to_le32(written),
		.id = cpu_to_le16(s->chain.id),
		.flags = cpu_to_le16(flags),
	};
	const u32 len = offsetof(struct vring_packed_desc, len);
	int ret;

	ret = vm_store(s, place(q, q->used) + len, &d.len, sizeof(d.len) + sizeof(d.id));
	if (ret)
		return ret;
	/* Pairs with the driver's barrier behind its look at the flags. */
	smp_wmb();
	ret = vm_store(s, place(q, q->used) + offsetof(struct vring_packed_desc, flags), &d.flags, sizeof(d.flags));
	if (ret)
		return ret;
	advance(q, &q->avail, &q->avail_wrap, s->chain.slots);
	advance(q, &q->used, &q->used_wrap, s->chain.slots);
	return 0;
}

int vm_packed_wants_call(struct vm_device *s, struct vm_queue *q)
{
	__le16 flags;
	int ret = vm_fetch(s, q->driver + EVENT_FLAGS, &flags, sizeof(flags));

	return ret ?: (le16_to_cpu(flags) & EVENT_MODE) != VRING_PACKED_EVENT_FLAG_DISABLE;
}
