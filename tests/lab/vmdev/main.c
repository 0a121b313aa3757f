// SPDX-License-Identifier: GPL-2.0-only
/* The module: a parent without hardware, and its types vmdev-blk and vmdev-net. */
#include <linux/device.h>
#include <linux/module.h>
#include <linux/pci.h>

#include "vmdev.h"

/* Its name is what the types' names begin with. */
static const struct class vm_class = { .name = "vmdev" };
static struct device *vm_parent_device;
static struct mdev_parent vm_parent;

static struct mdev_type vm_type_blk = { .sysfs_name = "blk", .pretty_name = "virtio block device" };
static struct mdev_type vm_type_net = { .sysfs_name = "net", .pretty_name = "virtio network device" };
static struct mdev_type *vm_types[] = { &vm_type_blk, &vm_type_net };

static int vm_probe(struct mdev_device *mdev)
{
	struct vm_device *s;
	int ret;

	s = vfio_alloc_device(vm_device, vdev, &mdev->dev, &vm_device_ops);
	if (IS_ERR(s))
		return PTR_ERR(s);
	s->personality = mdev->type == &vm_type_net ? &vm_net : &vm_blk;
	/* It is there, and nobody can have it yet. */
	ret = s->personality->init(s);
	if (ret)
		goto put;
	vm_function_init(s);
	dev_set_drvdata(&mdev->dev, s);
	ret = vfio_register_emulated_iommu_dev(&s->vdev);
	if (ret)
		goto put;
	return 0;
put:
	vfio_put_device(&s->vdev);
	return ret;
}

static void vm_remove(struct mdev_device *mdev)
{
	struct vm_device *s = dev_get_drvdata(&mdev->dev);

	/* Asks whoever has it for it, again and again, and waits until it was closed. */
	vfio_unregister_group_dev(&s->vdev);
	vfio_put_device(&s->vdev);
}

static struct mdev_driver vm_driver = {
	.device_api = VFIO_DEVICE_API_PCI_STRING,
	.max_instances = 8,
	.driver = {
		.name = "vmdev",
		.owner = THIS_MODULE,
		.mod_name = KBUILD_MODNAME,
	},
	.probe = vm_probe,
	.remove = vm_remove,
};

static int __init vm_init(void)
{
	int ret = mdev_register_driver(&vm_driver);

	if (ret)
		return ret;
	ret = class_register(&vm_class);
	if (ret)
		goto driver;
	vm_parent_device = device_create(&vm_class, NULL, MKDEV(0, 0), NULL, "vmdev");
	ret = PTR_ERR_OR_ZERO(vm_parent_device);
	if (ret)
		goto class;
	ret = mdev_register_parent(&vm_parent, vm_parent_device, &vm_driver, vm_types, ARRAY_SIZE(vm_types));
	if (!ret)
		return 0;
	device_unregister(vm_parent_device);
class:
	class_unregister(&vm_class);
driver:
	mdev_unregister_driver(&vm_driver);
	return ret;
}

static void __exit vm_exit(void)
{
	mdev_unregister_parent(&vm_parent);
	device_unregister(vm_parent_device);
	class_unregister(&vm_class);
	mdev_unregister_driver(&vm_driver);
}

module_init(vm_init);
module_exit(vm_exit);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("mediated devices that are virtio functions, for tests");
