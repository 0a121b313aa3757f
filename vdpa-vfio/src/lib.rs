//! A vDPA parent that drives a virtio-pci function, a SmartNIC's VF say, from user space through VFIO, with DMA that the
//! IOMMU translates.
