// SPDX-License-Identifier: GPL-2.0-only
/* A disk in memory, virtio 1.4 §5.2: what is written stays for as long as the mediated device is there. */
#include <linux/pci_ids.h>
#include <linux/unaligned.h>
#include <linux/vmalloc.h>
#include <uapi/linux/virtio_blk.h>
#include <uapi/linux/virtio_ids.h>

#include "vmdev.h"

#define SECTOR 512
#define SECTORS 4096

/* Each sector has its number, again and again. */
static int blk_init(struct vm_device *s)
{
	struct virtio_blk_config *config = (struct virtio_blk_config *)s->device_config;
	u64 i;

	BUILD_BUG_ON(sizeof(*config) > VM_DEVICE_CONFIG_LEN);
	s->store = vmalloc(SECTORS * SECTOR);
	if (!s->store)
		return -ENOMEM;
	for (i = 0; i < SECTORS * SECTOR / sizeof(i); i++)
		put_unaligned_le64(i / (SECTOR / sizeof(i)), s->store + sizeof(i) * i);
	config->capacity = (__force __virtio64)cpu_to_le64(SECTORS);
	config->num_queues = (__force __virtio16)cpu_to_le16(VM_QUEUES);
	return 0;
}

static void blk_release(struct vm_device *s)
{
	vfree(s->store);
}

/* Data that has to be whole sectors, all of them on the disk. NULL where they are not. */
static u8 *sectors(struct vm_device *s, u64 sector, u64 len)
{
	if (len % SECTOR || sector > SECTORS || len / SECTOR > SECTORS - sector)
		return NULL;
	return s->store + sector * SECTOR;
}

/* One request; what its status is to be, and how many bytes were written before it. */
static int blk_request(struct vm_device *s, u8 *status, u32 *written)
{
	struct virtio_blk_outhdr header;
	u8 id[VIRTIO_BLK_ID_BYTES] = "vmdev";
	/* Behind the header; and before the status. */
	u64 out = s->chain.readable - sizeof(header), in = s->chain.writable - sizeof(*status), sector;
	u8 *data;
	int ret;

	ret = vm_from_chain(s, 0, &header, sizeof(header));
	if (ret)
		return ret;
	sector = le64_to_cpu((__force __le64)header.sector);
	*status = VIRTIO_BLK_S_OK;
	switch (le32_to_cpu((__force __le32)header.type)) {
	case VIRTIO_BLK_T_IN:
		data = sectors(s, sector, in);
		if (!data)
			break;
		*written = in;
		return vm_to_chain(s, 0, data, in);
	case VIRTIO_BLK_T_OUT:
		data = sectors(s, sector, out);
		if (!data)
			break;
		return vm_from_chain(s, sizeof(header), data, out);
	case VIRTIO_BLK_T_FLUSH:
		if (vm_accepted(s, VIRTIO_BLK_F_FLUSH))
			return 0;
		*status = VIRTIO_BLK_S_UNSUPP;
		return 0;
	case VIRTIO_BLK_T_GET_ID:
		if (in < sizeof(id))
			break;
		*written = sizeof(id);
		return vm_to_chain(s, 0, id, sizeof(id));
	default:
		*status = VIRTIO_BLK_S_UNSUPP;
		return 0;
	}
	*status = VIRTIO_BLK_S_IOERR;
	return 0;
}

static int blk_serve(struct vm_device *s, unsigned int queue)
{
	struct vm_queue *q = &s->queue[queue];
	struct vm_chain *c = &s->chain;
	int left = q->size;

	/* Who makes more available than a ring has room for makes some of it available meanwhile, and kicks for that. */
	while (left > 0) {
		u32 written = 0;
		u64 last;
		u8 status;
		int ret = vm_take(s, q);

		if (ret <= 0)
			return ret;
		if (c->readable < sizeof(struct virtio_blk_outhdr) || !c->writable)
			return -EINVAL;
		left -= c->slots;
		last = c->writable - sizeof(status);
		ret = blk_request(s, &status, &written);
		if (ret)
			return ret;
		ret = vm_to_chain(s, last, &status, sizeof(status));
		if (ret)
			return ret;
		/* Only what is written from the first byte on counts: the status does where all before it was. */
		if (written == last)
			written += sizeof(status);
		ret = vm_put(s, q, written);
		if (ret)
			return ret;
	}
	return 0;
}

const struct vm_personality vm_blk = {
	.device_id = 0x1040 + VIRTIO_ID_BLOCK,
	.subsystem_id = 0x1100,
	.class_base = PCI_BASE_CLASS_STORAGE,
	.class_sub = 0x80,
	.features = BIT_ULL(VIRTIO_BLK_F_FLUSH) | BIT_ULL(VIRTIO_BLK_F_MQ),
	.second_queue_needs = BIT_ULL(VIRTIO_BLK_F_MQ),
	.init = blk_init,
	.release = blk_release,
	.serve = blk_serve,
};
