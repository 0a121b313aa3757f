// SPDX-License-Identifier: GPL-2.0-only
/* A device as VFIO shows it: regions that are read and written, interrupts that are eventfds, nothing that is mapped. */
#include <linux/eventfd.h>
#include <linux/pci.h>
#include <linux/slab.h>
#include <linux/uaccess.h>
#include <linux/vfio.h>

#include "vmdev.h"

/* A region's number is in the upper bits of a place in the device's file. */
#define REGION_SHIFT 40
#define REGION_MASK ((1ULL << REGION_SHIFT) - 1)

static struct vm_device *of(struct vfio_device *vdev)
{
	return container_of(vdev, struct vm_device, vdev);
}

static int vm_device_init(struct vfio_device *vdev)
{
	struct vm_device *s = of(vdev);

	mutex_init(&s->lock);
	mutex_init(&s->irq_lock);
	return 0;
}

static void vm_device_release(struct vfio_device *vdev)
{
	struct vm_device *s = of(vdev);

	if (s->personality)
		s->personality->release(s);
}

void vm_call(struct vm_device *s, u16 vector)
{
	mutex_lock(&s->irq_lock);
	if (vector < VM_VECTORS && s->vector[vector])
		eventfd_signal(s->vector[vector]);
	mutex_unlock(&s->irq_lock);
}

/* The device is to be removed: the kernel asks whoever has it, at once and then every ten seconds. */
static void vm_device_request(struct vfio_device *vdev, unsigned int count)
{
	struct vm_device *s = of(vdev);

	mutex_lock(&s->irq_lock);
	if (s->request)
		eventfd_signal(s->request);
	mutex_unlock(&s->irq_lock);
}

static u64 region_len(unsigned int index)
{
	switch (index) {
	case VFIO_PCI_BAR0_REGION_INDEX:
		return VM_BAR_LEN;
	case VFIO_PCI_CONFIG_REGION_INDEX:
		return VM_CONFIG_LEN;
	default:
		return 0;
	}
}

static u32 vector_count(unsigned int index)
{
	switch (index) {
	case VFIO_PCI_MSIX_IRQ_INDEX:
		return VM_VECTORS;
	case VFIO_PCI_REQ_IRQ_INDEX:
		return 1;
	default:
		return 0;
	}
}

/* An access in steps of the widths that registers have. */
static ssize_t access(struct vm_device *s, char __user *to, const char __user *from, size_t count, loff_t *ppos)
{
	u64 at = *ppos & REGION_MASK, len = region_len(*ppos >> REGION_SHIFT);
	bool is_bar = *ppos >> REGION_SHIFT == VFIO_PCI_BAR0_REGION_INDEX;
	size_t done = 0;
	ssize_t ret = 0;

	if (!len)
		return -EINVAL;
	if (at >= len)
		return 0;
	count = min_t(u64, count, len - at);
	if (mutex_lock_killable(&s->lock))
		return -EINTR;
	while (done < count) {
		size_t left = count - done;
		u32 bytes = left >= 4 && !(at & 3) ? 4 : left >= 2 && !(at & 1) ? 2 : 1;
		__le32 value = 0;

		if (from) {
			if (copy_from_user(&value, from + done, bytes)) {
				ret = -EFAULT;
				break;
			}
			if (is_bar)
				vm_bar_write(s, at, bytes, le32_to_cpu(value));
			else
				vm_config_write(s, at, bytes, le32_to_cpu(value));
		} else {
			value = cpu_to_le32(is_bar ? vm_bar_read(s, at, bytes) : vm_config_read(s, at, bytes));
			if (copy_to_user(to + done, &value, bytes)) {
				ret = -EFAULT;
				break;
			}
		}
		done += bytes;
		at += bytes;
	}
	mutex_unlock(&s->lock);
	*ppos += done;
	return done ?: ret;
}

static ssize_t vm_device_read(struct vfio_device *vdev, char __user *to, size_t count, loff_t *ppos)
{
	return access(of(vdev), to, NULL, count, ppos);
}

static ssize_t vm_device_write(struct vfio_device *vdev, const char __user *from, size_t count, loff_t *ppos)
{
	return access(of(vdev), NULL, from, count, ppos);
}

/* Has vectors signal these, NULL for nothing. Takes what it is given. */
static void point(struct vm_device *s, u32 index, u32 start, u32 count, struct eventfd_ctx **new)
{
	struct eventfd_ctx **slot = index == VFIO_PCI_MSIX_IRQ_INDEX ? s->vector + start : &s->request;
	u32 i;

	mutex_lock(&s->irq_lock);
	for (i = 0; i < count; i++)
		swap(slot[i], new[i]);
	mutex_unlock(&s->irq_lock);
	for (i = 0; i < count; i++) {
		if (new[i])
			eventfd_ctx_put(new[i]);
	}
}

static void forget(struct vm_device *s, u32 index)
{
	struct eventfd_ctx *none[VM_VECTORS] = {};

	point(s, index, 0, vector_count(index), none);
}

/* All of them are had before any is used: an error leaves everything as it was. */
static int set_eventfds(struct vm_device *s, const struct vfio_irq_set *set, const s32 *fds)
{
	struct eventfd_ctx *new[VM_VECTORS] = {};
	u32 i;

	for (i = 0; i < set->count; i++) {
		if (fds[i] < 0)
			continue;
		new[i] = eventfd_ctx_fdget(fds[i]);
		if (IS_ERR(new[i])) {
			int ret = PTR_ERR(new[i]);

			while (i--) {
				if (new[i])
					eventfd_ctx_put(new[i]);
			}
			return ret;
		}
	}
	point(s, set->index, set->start, set->count, new);
	return 0;
}

static int set_irqs(struct vm_device *s, void __user *arg)
{
	struct vfio_irq_set set;
	bool is_msix;
	s32 *fds = NULL;
	size_t len = 0;
	int ret;

	if (copy_from_user(&set, arg, offsetofend(struct vfio_irq_set, count)))
		return -EFAULT;
	ret = vfio_set_irqs_validate_and_prepare(&set, set.index < VFIO_PCI_NUM_IRQS ? vector_count(set.index) : 0,
						 VFIO_PCI_NUM_IRQS, &len);
	if (ret)
		return ret;
	if ((set.flags & VFIO_IRQ_SET_ACTION_TYPE_MASK) != VFIO_IRQ_SET_ACTION_TRIGGER)
		return -EINVAL;
	is_msix = set.index == VFIO_PCI_MSIX_IRQ_INDEX;
	if (set.flags & VFIO_IRQ_SET_DATA_NONE && !set.count) {
		forget(s, set.index);
	} else if (set.flags & VFIO_IRQ_SET_DATA_EVENTFD && set.count) {
		fds = memdup_user(arg + offsetofend(struct vfio_irq_set, count), len);
		if (IS_ERR(fds))
			return PTR_ERR(fds);
		ret = set_eventfds(s, &set, fds);
		kfree(fds);
		if (ret)
			return ret;
	} else {
		return -EINVAL;
	}
	if (is_msix) {
		mutex_lock(&s->lock);
		vm_show_msix(s, set.count != 0);
		mutex_unlock(&s->lock);
	}
	return 0;
}

static long vm_device_ioctl(struct vfio_device *vdev, unsigned int cmd, unsigned long arg)
{
	struct vm_device *s = of(vdev);
	void __user *user = (void __user *)arg;

	switch (cmd) {
	case VFIO_DEVICE_GET_INFO: {
		const size_t least = offsetofend(struct vfio_device_info, num_irqs);
		struct vfio_device_info info = {};

		if (copy_from_user(&info, user, least))
			return -EFAULT;
		if (info.argsz < least)
			return -EINVAL;
		info.flags = VFIO_DEVICE_FLAGS_PCI | VFIO_DEVICE_FLAGS_RESET;
		info.num_regions = VFIO_PCI_NUM_REGIONS;
		info.num_irqs = VFIO_PCI_NUM_IRQS;
		return copy_to_user(user, &info, least) ? -EFAULT : 0;
	}
	case VFIO_DEVICE_GET_REGION_INFO: {
		const size_t least = offsetofend(struct vfio_region_info, offset);
		struct vfio_region_info info = {};

		if (copy_from_user(&info, user, least))
			return -EFAULT;
		if (info.argsz < least || info.index >= VFIO_PCI_NUM_REGIONS)
			return -EINVAL;
		info.size = region_len(info.index);
		info.offset = (u64)info.index << REGION_SHIFT;
		info.flags = info.size ? VFIO_REGION_INFO_FLAG_READ | VFIO_REGION_INFO_FLAG_WRITE : 0;
		info.cap_offset = 0;
		return copy_to_user(user, &info, least) ? -EFAULT : 0;
	}
	case VFIO_DEVICE_GET_IRQ_INFO: {
		const size_t least = offsetofend(struct vfio_irq_info, count);
		struct vfio_irq_info info = {};

		if (copy_from_user(&info, user, least))
			return -EFAULT;
		if (info.argsz < least || info.index >= VFIO_PCI_NUM_IRQS)
			return -EINVAL;
		info.count = vector_count(info.index);
		info.flags = info.count ? VFIO_IRQ_INFO_EVENTFD : 0;
		return copy_to_user(user, &info, least) ? -EFAULT : 0;
	}
	case VFIO_DEVICE_SET_IRQS:
		return set_irqs(s, user);
	case VFIO_DEVICE_RESET:
		mutex_lock(&s->lock);
		vm_reset(s);
		mutex_unlock(&s->lock);
		return 0;
	default:
		return -ENOTTY;
	}
}

static void vm_device_close(struct vfio_device *vdev)
{
	struct vm_device *s = of(vdev);

	mutex_lock(&s->lock);
	vm_function_init(s);
	mutex_unlock(&s->lock);
	forget(s, VFIO_PCI_MSIX_IRQ_INDEX);
	forget(s, VFIO_PCI_REQ_IRQ_INDEX);
}

const struct vfio_device_ops vm_device_ops = {
	.name = "vmdev",
	.init = vm_device_init,
	.release = vm_device_release,
	.close_device = vm_device_close,
	.read = vm_device_read,
	.write = vm_device_write,
	.ioctl = vm_device_ioctl,
	.request = vm_device_request,
	.bind_iommufd = vfio_iommufd_emulated_bind,
	.unbind_iommufd = vfio_iommufd_emulated_unbind,
	.attach_ioas = vfio_iommufd_emulated_attach_ioas,
	.detach_ioas = vfio_iommufd_emulated_detach_ioas,
};
