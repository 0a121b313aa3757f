// SPDX-License-Identifier: GPL-2.0-only
/* A network card whose cable comes back to it, virtio 1.4 §5.1: what is sent is received. */
#include <linux/if_ether.h>
#include <linux/pci_ids.h>
#include <linux/vmalloc.h>
#include <uapi/linux/virtio_ids.h>
#include <uapi/linux/virtio_net.h>

#include "vmdev.h"

#define RECEIVE 0
#define TRANSMIT 1
#define HEADER sizeof(struct virtio_net_hdr_mrg_rxbuf)
/* The longest packet, without its header; what is longer is lost. */
#define PACKET_MAX 65550

static int net_init(struct vm_device *s)
{
	struct virtio_net_config *config = (struct virtio_net_config *)s->device_config;
	static atomic_t number;
	/* 52:54:00 is what virtual machines' cards have. */
	const u8 mac[ETH_ALEN] = { 0x52, 0x54, 0x00, 0x6d, 0x64, atomic_inc_return(&number) };

	BUILD_BUG_ON(sizeof(*config) > VM_DEVICE_CONFIG_LEN);
	s->store = vmalloc(HEADER + PACKET_MAX);
	if (!s->store)
		return -ENOMEM;
	memcpy(config->mac, mac, sizeof(mac));
	return 0;
}

static void net_release(struct vm_device *s)
{
	vfree(s->store);
}

/* Gives the packet to the next buffer that is there for it. Where there is none, or it is too small, the packet is lost. */
static int receive(struct vm_device *s, u32 len)
{
	struct vm_queue *q = &s->queue[RECEIVE];
	struct virtio_net_hdr_mrg_rxbuf *header = (struct virtio_net_hdr_mrg_rxbuf *)s->store;
	int ret;

	if (!q->enabled)
		return 0;
	ret = vm_take(s, q);
	if (ret <= 0)
		return ret;
	/* A queue of buffers that are written, and of nothing else. */
	if (s->chain.readable)
		return -EINVAL;
	if (s->chain.writable < HEADER + len)
		return 0;
	/* Nothing of the sender's: no offload was negotiated, and a packet is in one buffer. */
	memset(header, 0, HEADER);
	header->num_buffers = (__force __virtio16)cpu_to_le16(1);
	ret = vm_to_chain(s, 0, s->store, HEADER + len);
	return ret ?: vm_put(s, q, HEADER + len);
}

static int net_serve(struct vm_device *s, unsigned int queue)
{
	struct vm_queue *q = &s->queue[TRANSMIT];
	struct vm_chain *c = &s->chain;
	int left = q->size;

	/* Buffers to receive into wait for a packet. */
	if (queue != TRANSMIT)
		return 0;
	while (left > 0) {
		u32 len = 0;
		int ret = vm_take(s, q);

		if (ret <= 0)
			return ret;
		if (c->writable)
			return -EINVAL;
		left -= c->slots;
		if (c->readable > HEADER && c->readable <= HEADER + PACKET_MAX) {
			len = c->readable - HEADER;
			ret = vm_from_chain(s, 0, s->store, HEADER + len);
			if (ret)
				return ret;
		}
		ret = vm_put(s, q, 0);
		if (!ret && len)
			ret = receive(s, len);
		if (ret)
			return ret;
	}
	return 0;
}

const struct vm_personality vm_net = {
	.device_id = 0x1040 + VIRTIO_ID_NET,
	.subsystem_id = 0x1100,
	.class_base = PCI_BASE_CLASS_NETWORK,
	.class_sub = 0x00,
	.features = BIT_ULL(VIRTIO_NET_F_MAC),
	.init = net_init,
	.release = net_release,
	.serve = net_serve,
};
