// SPDX-License-Identifier: GPL-2.0-only
/*
 * The registers of a function: configuration space, and BAR 0.
 *
 *   BAR 0   0x0000 common configuration   0x1000 ISR status   0x2000 the device's own configuration
 *           0x3000 a doorbell of 4 bytes for each queue        0x3800 MSI-X table, which VFIO's users leave alone
 */
#include <linux/pci.h>
#include <linux/unaligned.h>
#include <uapi/linux/virtio_config.h>
#include <uapi/linux/virtio_pci.h>

#include "vmdev.h"

#define ISR_AT 0x1000
#define DEVICE_AT 0x2000
#define NOTIFY_AT 0x3000
#define NOTIFY_LEN 0x800
#define NOTIFY_EACH 4
#define TABLE_AT 0x3800
#define PENDING_AT 0x3c00

/* Where the capabilities are in configuration space. */
#define COMMON_CAP 0x40
#define ISR_CAP 0x50
#define DEVICE_CAP 0x60
#define NOTIFY_CAP 0x70
#define WINDOW_CAP 0x84
#define MSIX_CAP 0x98
#define WINDOW_DATA (WINDOW_CAP + sizeof(struct virtio_pci_cap))

#define STATUS_DRIVER_SETS (VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER | VIRTIO_CONFIG_S_DRIVER_OK | \
			    VIRTIO_CONFIG_S_FEATURES_OK | VIRTIO_CONFIG_S_FAILED)

static void add_cap(struct vm_device *s, u8 at, u8 next, u8 len, u8 type, u32 offset, u32 length)
{
	struct virtio_pci_cap *cap = (struct virtio_pci_cap *)(s->config + at);

	*cap = (struct virtio_pci_cap) {
		.cap_vndr = PCI_CAP_ID_VNDR,
		.cap_next = next,
		.cap_len = len,
		.cfg_type = type,
		.offset = cpu_to_le32(offset),
		.length = cpu_to_le32(length),
	};
}

/* As after power-on. */
void vm_function_init(struct vm_device *s)
{
	const struct vm_personality *p = s->personality;
	u8 *c = s->config;

	memset(c, 0, VM_CONFIG_LEN);
	put_unaligned_le16(PCI_VENDOR_ID_REDHAT_QUMRANET, c + PCI_VENDOR_ID);
	put_unaligned_le16(p->device_id, c + PCI_DEVICE_ID);
	put_unaligned_le16(PCI_STATUS_CAP_LIST, c + PCI_STATUS);
	c[PCI_REVISION_ID] = 1;
	c[PCI_CLASS_DEVICE] = p->class_sub;
	c[PCI_CLASS_DEVICE + 1] = p->class_base;
	/* Somewhere: nobody decodes it. */
	put_unaligned_le32(0xfebf0000, c + PCI_BASE_ADDRESS_0);
	put_unaligned_le16(PCI_VENDOR_ID_REDHAT_QUMRANET, c + PCI_SUBSYSTEM_VENDOR_ID);
	put_unaligned_le16(p->subsystem_id, c + PCI_SUBSYSTEM_ID);
	c[PCI_CAPABILITY_LIST] = COMMON_CAP;
	add_cap(s, COMMON_CAP, ISR_CAP, sizeof(struct virtio_pci_cap), VIRTIO_PCI_CAP_COMMON_CFG, 0,
		sizeof(struct virtio_pci_common_cfg));
	add_cap(s, ISR_CAP, DEVICE_CAP, sizeof(struct virtio_pci_cap), VIRTIO_PCI_CAP_ISR_CFG, ISR_AT, 1);
	add_cap(s, DEVICE_CAP, NOTIFY_CAP, sizeof(struct virtio_pci_cap), VIRTIO_PCI_CAP_DEVICE_CFG, DEVICE_AT,
		VM_DEVICE_CONFIG_LEN);
	add_cap(s, NOTIFY_CAP, WINDOW_CAP, sizeof(struct virtio_pci_notify_cap), VIRTIO_PCI_CAP_NOTIFY_CFG, NOTIFY_AT,
		NOTIFY_LEN);
	put_unaligned_le32(NOTIFY_EACH, c + NOTIFY_CAP + sizeof(struct virtio_pci_cap));
	add_cap(s, WINDOW_CAP, MSIX_CAP, sizeof(struct virtio_pci_cfg_cap), VIRTIO_PCI_CAP_PCI_CFG, 0, 0);
	c[MSIX_CAP] = PCI_CAP_ID_MSIX;
	put_unaligned_le16(VM_VECTORS - 1, c + MSIX_CAP + PCI_MSIX_FLAGS);
	put_unaligned_le32(TABLE_AT, c + MSIX_CAP + PCI_MSIX_TABLE);
	put_unaligned_le32(PENDING_AT, c + MSIX_CAP + PCI_MSIX_PBA);
	vm_reset(s);
}

/* The user of VFIO switches MSI-X on and off by its interrupts, not by this bit. */
void vm_show_msix(struct vm_device *s, bool on)
{
	u16 flags = VM_VECTORS - 1;

	if (on)
		flags |= PCI_MSIX_FLAGS_ENABLE;
	put_unaligned_le16(flags, s->config + MSIX_CAP + PCI_MSIX_FLAGS);
}

void vm_reset(struct vm_device *s)
{
	int i;

	s->device_feature_select = 0;
	s->driver_feature_select = 0;
	memset(s->driver_features, 0, sizeof(s->driver_features));
	s->status = 0;
	s->isr = 0;
	s->config_vector = VIRTIO_MSI_NO_VECTOR;
	s->queue_select = 0;
	for (i = 0; i < VM_QUEUES; i++) {
		s->queue[i] = (struct vm_queue) {
			.size = VM_QUEUE_MAX,
			.vector = VIRTIO_MSI_NO_VECTOR,
			.avail_wrap = true,
			.used_wrap = true,
		};
	}
}

static u64 offered(const struct vm_device *s)
{
	return s->personality->features | BIT_ULL(VIRTIO_F_VERSION_1) | BIT_ULL(VIRTIO_F_ACCESS_PLATFORM) |
	       BIT_ULL(VIRTIO_F_RING_PACKED);
}

static u64 accepted(const struct vm_device *s)
{
	return (u64)s->driver_features[1] << 32 | s->driver_features[0];
}

/* Whether a feature was accepted, for good. */
bool vm_accepted(const struct vm_device *s, unsigned int bit)
{
	return s->status & VIRTIO_CONFIG_S_FEATURES_OK && accepted(s) & BIT_ULL(bit);
}

/* Whether the device works with what was accepted. All of its memory is the platform's to translate. */
static bool is_acceptable(const struct vm_device *s)
{
	const u64 needed = BIT_ULL(VIRTIO_F_VERSION_1) | BIT_ULL(VIRTIO_F_ACCESS_PLATFORM);
	int i;

	for (i = 2; i < VM_FEATURE_WORDS; i++) {
		if (s->driver_features[i])
			return false;
	}
	return !(accepted(s) & ~offered(s)) && (accepted(s) & needed) == needed;
}

/* The queue that is selected, if it is there: until FEATURES_OK, all are that there can be. */
static struct vm_queue *selected(struct vm_device *s)
{
	u64 needs = s->personality->second_queue_needs;

	if (s->queue_select >= VM_QUEUES)
		return NULL;
	if (s->queue_select && needs && s->status & VIRTIO_CONFIG_S_FEATURES_OK && !(accepted(s) & needs))
		return NULL;
	return &s->queue[s->queue_select];
}

static void write_status(struct vm_device *s, u8 status)
{
	u8 was = s->status;
	unsigned int i;

	if (!status) {
		vm_reset(s);
		return;
	}
	/* Only a reset takes bits back, and what the device says the driver does not. */
	status = was | (status & STATUS_DRIVER_SETS);
	if (!(was & VIRTIO_CONFIG_S_FEATURES_OK) && !is_acceptable(s))
		status &= ~VIRTIO_CONFIG_S_FEATURES_OK;
	if (!(status & VIRTIO_CONFIG_S_FEATURES_OK))
		status &= ~VIRTIO_CONFIG_S_DRIVER_OK;
	s->status = status;
	/* What was made available before is not lost, whether the driver kicks again or not. */
	if (status & ~was & VIRTIO_CONFIG_S_DRIVER_OK) {
		for (i = 0; i < VM_QUEUES; i++)
			vm_kick(s, i);
	}
}

static u16 vector(u32 value)
{
	return value < VM_VECTORS ? value : VIRTIO_MSI_NO_VECTOR;
}

static void set_half(u64 *field, bool high, u32 value)
{
	*field = high ? (u64)value << 32 | lower_32_bits(*field) : (*field & ~0xffffffffULL) | value;
}

static bool is_size(const struct vm_device *s, u32 size)
{
	if (!size || size > VM_QUEUE_MAX)
		return false;
	return vm_accepted(s, VIRTIO_F_RING_PACKED) || is_power_of_2(size);
}

/* A register of the selected queue. Where it is and how long it is stays as it was once it is enabled. */
static void write_queue(struct vm_device *s, struct vm_queue *q, u32 at, u32 bytes, u32 value)
{
	if (at == VIRTIO_PCI_COMMON_Q_MSIX && bytes == 2) {
		q->vector = vector(value);
		return;
	}
	if (q->enabled)
		return;
	switch (at) {
	case VIRTIO_PCI_COMMON_Q_SIZE:
		if (bytes == 2 && is_size(s, value))
			q->size = value;
		break;
	case VIRTIO_PCI_COMMON_Q_ENABLE:
		/* What its size means is agreed on by then. */
		if (bytes == 2 && value == 1 && s->status & VIRTIO_CONFIG_S_FEATURES_OK && is_size(s, q->size))
			q->enabled = true;
		break;
	case VIRTIO_PCI_COMMON_Q_DESCLO:
	case VIRTIO_PCI_COMMON_Q_DESCHI:
		if (bytes == 4)
			set_half(&q->desc, at == VIRTIO_PCI_COMMON_Q_DESCHI, value);
		break;
	case VIRTIO_PCI_COMMON_Q_AVAILLO:
	case VIRTIO_PCI_COMMON_Q_AVAILHI:
		if (bytes == 4)
			set_half(&q->driver, at == VIRTIO_PCI_COMMON_Q_AVAILHI, value);
		break;
	case VIRTIO_PCI_COMMON_Q_USEDLO:
	case VIRTIO_PCI_COMMON_Q_USEDHI:
		if (bytes == 4)
			set_half(&q->device, at == VIRTIO_PCI_COMMON_Q_USEDHI, value);
		break;
	}
}

/* Each field by an access of its own width. */
static void write_common(struct vm_device *s, u32 at, u32 bytes, u32 value)
{
	struct vm_queue *q;

	switch (at) {
	case VIRTIO_PCI_COMMON_DFSELECT:
		if (bytes == 4)
			s->device_feature_select = value;
		return;
	case VIRTIO_PCI_COMMON_GFSELECT:
		if (bytes == 4)
			s->driver_feature_select = value;
		return;
	case VIRTIO_PCI_COMMON_GF:
		/* No more once they were agreed on. */
		if (bytes == 4 && s->driver_feature_select < VM_FEATURE_WORDS &&
		    !(s->status & VIRTIO_CONFIG_S_FEATURES_OK))
			s->driver_features[s->driver_feature_select] = value;
		return;
	case VIRTIO_PCI_COMMON_MSIX:
		if (bytes == 2)
			s->config_vector = vector(value);
		return;
	case VIRTIO_PCI_COMMON_STATUS:
		if (bytes == 1)
			write_status(s, value);
		return;
	case VIRTIO_PCI_COMMON_Q_SELECT:
		if (bytes == 2)
			s->queue_select = value;
		return;
	}
	q = selected(s);
	if (q)
		write_queue(s, q, at, bytes, value);
}

static void show_common(struct vm_device *s, struct virtio_pci_common_cfg *c)
{
	const struct vm_queue *q = selected(s);
	u32 select = s->device_feature_select;

	*c = (struct virtio_pci_common_cfg) {
		.device_feature_select = cpu_to_le32(select),
		.device_feature = cpu_to_le32(select < 2 ? (u32)(offered(s) >> (32 * select)) : 0),
		.guest_feature_select = cpu_to_le32(s->driver_feature_select),
		.msix_config = cpu_to_le16(s->config_vector),
		.num_queues = cpu_to_le16(VM_QUEUES),
		.device_status = s->status,
		/* Nothing of the device's configuration ever changes. */
		.config_generation = 0,
		.queue_select = cpu_to_le16(s->queue_select),
		.queue_msix_vector = cpu_to_le16(VIRTIO_MSI_NO_VECTOR),
	};
	if (s->driver_feature_select < VM_FEATURE_WORDS)
		c->guest_feature = cpu_to_le32(s->driver_features[s->driver_feature_select]);
	if (!q)
		return;
	c->queue_size = cpu_to_le16(q->size);
	c->queue_msix_vector = cpu_to_le16(q->vector);
	c->queue_enable = cpu_to_le16(q->enabled);
	c->queue_notify_off = cpu_to_le16(s->queue_select);
	c->queue_desc_lo = cpu_to_le32(lower_32_bits(q->desc));
	c->queue_desc_hi = cpu_to_le32(upper_32_bits(q->desc));
	c->queue_avail_lo = cpu_to_le32(lower_32_bits(q->driver));
	c->queue_avail_hi = cpu_to_le32(upper_32_bits(q->driver));
	c->queue_used_lo = cpu_to_le32(lower_32_bits(q->device));
	c->queue_used_hi = cpu_to_le32(upper_32_bits(q->device));
}

/* Reads what is in a structure of this length, and zeroes behind it. */
static u32 part(const void *of, u32 len, u32 at, u32 bytes)
{
	__le32 value = 0;

	if (at < len)
		memcpy(&value, of + at, min(bytes, len - at));
	return le32_to_cpu(value);
}

u32 vm_bar_read(struct vm_device *s, u32 at, u32 bytes)
{
	struct virtio_pci_common_cfg common;
	u32 value;

	if (at < ISR_AT) {
		show_common(s, &common);
		return part(&common, sizeof(common), at, bytes);
	}
	if (at == ISR_AT) {
		value = s->isr;
		s->isr = 0;
		return value;
	}
	if (at >= DEVICE_AT && at < NOTIFY_AT)
		return part(s->device_config, VM_DEVICE_CONFIG_LEN, at - DEVICE_AT, bytes);
	return 0;
}

/* The device's own configuration is for reading. */
void vm_bar_write(struct vm_device *s, u32 at, u32 bytes, u32 value)
{
	if (at < ISR_AT)
		write_common(s, at, bytes, value);
	else if (at >= NOTIFY_AT && at < NOTIFY_AT + NOTIFY_LEN)
		vm_kick(s, (at - NOTIFY_AT) / NOTIFY_EACH);
}

/* Where the configuration access window points to, if that is a register of BAR 0. */
static bool window(const struct vm_device *s, u32 *at, u32 *bytes)
{
	const struct virtio_pci_cap *cap = (const struct virtio_pci_cap *)(s->config + WINDOW_CAP);

	*at = le32_to_cpu(cap->offset);
	*bytes = le32_to_cpu(cap->length);
	return cap->bar == 0 && (*bytes == 1 || *bytes == 2 || *bytes == 4) && *at < VM_BAR_LEN &&
	       IS_ALIGNED(*at, *bytes);
}

u32 vm_config_read(struct vm_device *s, u32 at, u32 bytes)
{
	u32 where, width;

	if (at >= WINDOW_DATA && at < WINDOW_DATA + 4 && window(s, &where, &width))
		put_unaligned_le32(vm_bar_read(s, where, width), s->config + WINDOW_DATA);
	return part(s->config, VM_CONFIG_LEN, at, bytes);
}

/* The bits that may be written of a byte of configuration space. */
static u8 writable(u32 at)
{
	switch (at) {
	case PCI_COMMAND:
		return PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER;
	case PCI_COMMAND + 1:
		return PCI_COMMAND_INTX_DISABLE >> 8;
	case PCI_BASE_ADDRESS_0 + 1:
		return (u8)~((VM_BAR_LEN - 1) >> 8);
	case PCI_BASE_ADDRESS_0 + 2:
	case PCI_BASE_ADDRESS_0 + 3:
	case PCI_CACHE_LINE_SIZE:
	case PCI_INTERRUPT_LINE:
	case WINDOW_CAP + offsetof(struct virtio_pci_cap, bar):
		return 0xff;
	default:
		return at >= WINDOW_CAP + offsetof(struct virtio_pci_cap, offset) && at < WINDOW_DATA + 4 ? 0xff : 0;
	}
}

void vm_config_write(struct vm_device *s, u32 at, u32 bytes, u32 value)
{
	u32 i, where, width;

	for (i = 0; i < bytes; i++) {
		u8 mask = writable(at + i);

		s->config[at + i] = (s->config[at + i] & ~mask) | ((u8)(value >> (8 * i)) & mask);
	}
	if (at >= WINDOW_DATA && at < WINDOW_DATA + 4 && window(s, &where, &width)) {
		value = get_unaligned_le32(s->config + WINDOW_DATA);
		vm_bar_write(s, where, width, width == 4 ? value : value & (BIT(8 * width) - 1));
	}
}
