// Copyright (c) 2026, vfio.host contributors
// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * For the lab only: shares out QEMU's "edu" function as mediated devices of two types, two devices in all, so that one
 * type takes what the other might have. A device does nothing, but has an IOMMU group and a node in /dev/vfio.
 *
 * Licensed as a part of the kernel has to be. For Linux 6.1; later ones want what is below LINUX_VERSION_CODE.
 */

#include <linux/device.h>
#include <linux/mdev.h>
#include <linux/module.h>
#include <linux/pci.h>
#include <linux/version.h>
#include <linux/vfio.h>

struct part {
	struct vfio_device vdev;
};

static void part_release(struct vfio_device *vdev)
{
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 2, 0)
	vfio_free_device(vdev);	/* later ones do it themselves */
#endif
}

static const struct vfio_device_ops part_ops = {
	.name = "vfio-host-mediated",
	.release = part_release,
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 2, 0)
	.bind_iommufd = vfio_iommufd_emulated_bind,
	.unbind_iommufd = vfio_iommufd_emulated_unbind,
	.attach_ioas = vfio_iommufd_emulated_attach_ioas,
#endif
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 6, 0)
	.detach_ioas = vfio_iommufd_emulated_detach_ioas,
#endif
};

static int part_probe(struct mdev_device *mdev)
{
	struct part *part = vfio_alloc_device(part, vdev, &mdev->dev, &part_ops);
	int error;

	if (IS_ERR(part))
		return PTR_ERR(part);
	error = vfio_register_emulated_iommu_dev(&part->vdev);
	if (error) {
		vfio_put_device(&part->vdev);
		return error;
	}
	dev_set_drvdata(&mdev->dev, part);
	return 0;
}

static void part_remove(struct mdev_device *mdev)
{
	struct part *part = dev_get_drvdata(&mdev->dev);

	vfio_unregister_group_dev(&part->vdev);
	vfio_put_device(&part->vdev);
}

static struct mdev_driver part_driver = {
	.device_api = VFIO_DEVICE_API_PCI_STRING,
	.max_instances = 2,
	.driver = {
		.name = "vfio_host_mediated",
		.owner = THIS_MODULE,
		.mod_name = KBUILD_MODNAME,
	},
	.probe = part_probe,
	.remove = part_remove,
};

/* One function only: the types belong to one parent. */
static struct mdev_type large = { .sysfs_name = "large", .pretty_name = "Large part" };
static struct mdev_type small = { .sysfs_name = "small", .pretty_name = "Small part" };
static struct mdev_type *types[] = { &large, &small };
static struct mdev_parent parent;
static atomic_t taken = ATOMIC_INIT(0);

static int card_probe(struct pci_dev *pdev, const struct pci_device_id *id)
{
	int error;

	if (atomic_cmpxchg(&taken, 0, 1))
		return -EBUSY;
	error = mdev_register_parent(&parent, &pdev->dev, &part_driver, types, ARRAY_SIZE(types));
	if (error)
		atomic_set(&taken, 0);
	return error;
}

static void card_remove(struct pci_dev *pdev)
{
	mdev_unregister_parent(&parent);
	atomic_set(&taken, 0);
}

static const struct pci_device_id cards[] = {
	{ PCI_DEVICE(0x1234, 0x11e8) },
	{ }
};
MODULE_DEVICE_TABLE(pci, cards);

static struct pci_driver card_driver = {
	.name = "vfio_host_mediated",
	.id_table = cards,
	.probe = card_probe,
	.remove = card_remove,
};

static int __init start(void)
{
	int error = mdev_register_driver(&part_driver);

	if (error)
		return error;
	error = pci_register_driver(&card_driver);
	if (error)
		mdev_unregister_driver(&part_driver);
	return error;
}
module_init(start);

static void __exit end(void)
{
	pci_unregister_driver(&card_driver);
	mdev_unregister_driver(&part_driver);
}
module_exit(end);

MODULE_DESCRIPTION("Mediated devices for tests of vfio.host");
MODULE_LICENSE("GPL");
