// SPDX-License-Identifier: GPL-2.0-only
/* Split rings, virtio 1.4 §2.7. */
#include <uapi/linux/virtio_ring.h>

#include "vmdev.h"

/* In the driver's area and in the device's: flags, an index, and entries of 2 bytes and of 8. */
#define FLAGS 0
#define IDX 2
#define ENTRIES 4

struct split_desc {
	__le64 addr;
	__le32 len;
	__le16 flags;
	__le16 next;
};

struct split_used {
	__le32 id;
	__le32 len;
};

int vm_split_take(struct vm_device *s, struct vm_queue *q)
{
	struct vm_chain *c = &s->chain;
	struct split_desc d;
	__le16 word;
	u16 ahead, at, flags;
	int ret;

	ret = vm_fetch(s, q->driver + IDX, &word, sizeof(word));
	if (ret)
		return ret;
	ahead = le16_to_cpu(word) - q->avail;
	if (!ahead)
		return 0;
	if (ahead > q->size)
		return -EINVAL;
	/* Pairs with the driver's barrier before it moves its index. */
	smp_rmb();
	ret = vm_fetch(s, q->driver + ENTRIES + 2 * (q->avail % q->size), &word, sizeof(word));
	if (ret)
		return ret;
	at = le16_to_cpu(word);
	c->id = at;
	c->slots = 1;
	do {
		if (at >= q->size)
			return -EINVAL;
		ret = vm_fetch(s, q->desc + sizeof(d) * at, &d, sizeof(d));
		if (ret)
			return ret;
		flags = le16_to_cpu(d.flags);
		ret = vm_add(c, q->size, le64_to_cpu(d.addr), le32_to_cpu(d.len), flags);
		if (ret)
			return ret;
		at = le16_to_cpu(d.next);
	} while (flags & VRING_DESC_F_NEXT);
	return 1;
}

int vm_split_put(struct vm_device *s, struct vm_queue *q, u32 written)
{
	struct split_used used = { .id = cpu_to_le32(s->chain.id), .len = cpu_to_le32(written) };
	__le16 idx = cpu_to_le16(q->used + 1);
	int ret;

	ret = vm_store(s, q->device + ENTRIES + sizeof(used) * (q->used % q->size), &used, sizeof(used));
	if (ret)
		return ret;
	/* Pairs with the driver's barrier behind its look at the index. */
	smp_wmb();
	ret = vm_store(s, q->device + IDX, &idx, sizeof(idx));
	if (ret)
		return ret;
	q->avail++;
	q->used++;
	return 0;
}

int vm_split_wants_call(struct vm_device *s, struct vm_queue *q)
{
	__le16 flags;
	int ret = vm_fetch(s, q->driver + FLAGS, &flags, sizeof(flags));

	return ret ?: !(le16_to_cpu(flags) & VRING_AVAIL_F_NO_INTERRUPT);
}
