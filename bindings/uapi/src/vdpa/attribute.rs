//! Attributes, each with the type that the kernel gives it.

use netlink_packet_core::{DecodeError, DefaultNla, Nla, NlaBuffer, Parseable};

use super::numbers::*;

/// Defines [`Attribute`], and how each is read and written.
macro_rules! attributes {
    ($($(#[$doc:meta])* $name:ident($ty:ty) = $kind:ident,)*) => {
        /// An attribute of a message.
        ///
        /// # Spec
        /// `linux/vdpa.h`, `enum vdpa_attr`.
        #[derive(Clone, PartialEq, Eq, Debug)]
        #[non_exhaustive]
        pub enum Attribute {
            $(
                $(#[$doc])*
                #[doc = concat!("[`", stringify!($kind), "`].")]
                $name($ty),
            )*
            /// One that came later.
            Other(DefaultNla),
        }

        impl Nla for Attribute {
            fn value_len(&self) -> usize {
                match self {
                    $(Self::$name(value) => value.len_bytes(),)*
                    Self::Other(other) => other.value_len(),
                }
            }

            fn kind(&self) -> u16 {
                match self {
                    $(Self::$name(_) => $kind,)*
                    Self::Other(other) => other.kind(),
                }
            }

            fn emit_value(&self, buffer: &mut [u8]) {
                match self {
                    $(Self::$name(value) => value.put(buffer),)*
                    Self::Other(other) => other.emit_value(buffer),
                }
            }
        }

        impl<'a, T: AsRef<[u8]> + ?Sized> Parseable<NlaBuffer<&'a T>> for Attribute {
            fn parse(attribute: &NlaBuffer<&'a T>) -> Result<Self, DecodeError> {
                let value = attribute.value();
                Ok(match attribute.kind() {
                    $($kind => Self::$name(Field::take(value).ok_or_else(|| {
                        DecodeError::from(format!(concat!(stringify!($kind), ": {} bytes: {:02x?}"), value.len(), value))
                    })?),)*
                    _ => Self::Other(DefaultNla::parse(attribute)?),
                })
            }
        }
    };
}

attributes! {
    /// The bus of a management device, where it has one.
    ManagementBus(String) = VDPA_ATTR_MGMTDEV_BUS_NAME,
    /// The name of a management device.
    ManagementDevice(String) = VDPA_ATTR_MGMTDEV_DEV_NAME,
    /// Bits, each of a device type that it makes.
    Classes(u64) = VDPA_ATTR_MGMTDEV_SUPPORTED_CLASSES,
    /// The name of a device.
    Name(String) = VDPA_ATTR_DEV_NAME,
    /// The virtio device type.
    DeviceId(u32) = VDPA_ATTR_DEV_ID,
    /// The vendor.
    VendorId(u32) = VDPA_ATTR_DEV_VENDOR_ID,
    /// How many queues it has.
    MaxQueues(u32) = VDPA_ATTR_DEV_MAX_VQS,
    /// How large they may be.
    MaxQueueSize(u16) = VDPA_ATTR_DEV_MAX_VQ_SIZE,
    /// How small they may be.
    MinQueueSize(u16) = VDPA_ATTR_DEV_MIN_VQ_SIZE,
    /// A network card's address.
    Mac([u8; 6]) = VDPA_ATTR_DEV_NET_CFG_MACADDR,
    /// A network card's status.
    NetStatus(u16) = VDPA_ATTR_DEV_NET_STATUS,
    /// Its queue pairs.
    QueuePairs(u16) = VDPA_ATTR_DEV_NET_CFG_MAX_VQP,
    /// Its MTU, in bytes.
    Mtu(u16) = VDPA_ATTR_DEV_NET_CFG_MTU,
    /// Features that the driver has accepted.
    NegotiatedFeatures(u64) = VDPA_ATTR_DEV_NEGOTIATED_FEATURES,
    /// How many queues a management device gives a device.
    ManagementMaxQueues(u32) = VDPA_ATTR_DEV_MGMTDEV_MAX_VQS,
    /// Features that a management device has for devices.
    SupportedFeatures(u64) = VDPA_ATTR_DEV_SUPPORTED_FEATURES,
    /// A queue, by number.
    QueueIndex(u32) = VDPA_ATTR_DEV_QUEUE_INDEX,
    /// What one of the vendor's counters is called; its value follows.
    VendorName(String) = VDPA_ATTR_DEV_VENDOR_ATTR_NAME,
    /// How far it has counted.
    VendorValue(u64) = VDPA_ATTR_DEV_VENDOR_ATTR_VALUE,
    /// Features that a device is to have.
    Features(u64) = VDPA_ATTR_DEV_FEATURES,
    /// A disk's capacity, in sectors of 512 bytes. Linux 6.1 means features of the device by this number.
    ///
    Capacity(u64) = VDPA_ATTR_DEV_BLK_CFG_CAPACITY,
    /// Its largest segment, in bytes.
    SegmentSize(u32) = VDPA_ATTR_DEV_BLK_CFG_SIZE_MAX,
    /// Its block size, in bytes.
    BlockSize(u32) = VDPA_ATTR_DEV_BLK_CFG_BLK_SIZE,
    /// Its most segments.
    Segments(u32) = VDPA_ATTR_DEV_BLK_CFG_SEG_MAX,
    /// Its queues.
    BlockQueues(u16) = VDPA_ATTR_DEV_BLK_CFG_NUM_QUEUES,
    /// Logical blocks of a physical one, as a power of two.
    PhysicalBlockExponent(u8) = VDPA_ATTR_DEV_BLK_CFG_PHY_BLK_EXP,
    /// Where the first aligned block is, in blocks.
    AlignmentOffset(u8) = VDPA_ATTR_DEV_BLK_CFG_ALIGN_OFFSET,
    /// Its smallest good request, in blocks.
    MinIoSize(u16) = VDPA_ATTR_DEV_BLK_CFG_MIN_IO_SIZE,
    /// Its best request, in blocks.
    OptimalIoSize(u32) = VDPA_ATTR_DEV_BLK_CFG_OPT_IO_SIZE,
    /// How much is discarded at once, in sectors.
    DiscardSectors(u32) = VDPA_ATTR_DEV_BLK_CFG_MAX_DISCARD_SEC,
    /// In how many segments.
    DiscardSegments(u32) = VDPA_ATTR_DEV_BLK_CFG_MAX_DISCARD_SEG,
    /// How that is aligned, in sectors.
    DiscardAlignment(u32) = VDPA_ATTR_DEV_BLK_CFG_DISCARD_SEC_ALIGN,
    /// How much is zeroed at once, in sectors.
    ZeroSectors(u32) = VDPA_ATTR_DEV_BLK_CFG_MAX_WRITE_ZEROES_SEC,
    /// In how many segments.
    ZeroSegments(u32) = VDPA_ATTR_DEV_BLK_CFG_MAX_WRITE_ZEROES_SEG,
    /// 1: it cannot be written to.
    ReadOnly(u8) = VDPA_ATTR_DEV_BLK_READ_ONLY,
    /// 1: it has a cache that can be flushed.
    Flush(u8) = VDPA_ATTR_DEV_BLK_FLUSH,
}

/// A value, as it lies in an attribute: in the host's byte order, text with a NUL.
trait Field: Sized {
    fn len_bytes(&self) -> usize;
    fn put(&self, to: &mut [u8]);
    /// `None` unless it is as long as it has to be.
    fn take(from: &[u8]) -> Option<Self>;
}

macro_rules! fields {
    ($($integer:ty)*) => { $(
        impl Field for $integer {
            fn len_bytes(&self) -> usize {
                size_of::<Self>()
            }

            fn put(&self, to: &mut [u8]) {
                self.to_ne_bytes().put(to);
            }

            fn take(from: &[u8]) -> Option<Self> {
                Field::take(from).map(Self::from_ne_bytes)
            }
        }
    )* };
}
fields!(u8 u16 u32 u64);

impl<const N: usize> Field for [u8; N] {
    fn len_bytes(&self) -> usize {
        N
    }

    fn put(&self, to: &mut [u8]) {
        for (to, from) in to.iter_mut().zip(self) {
            *to = *from;
        }
    }

    fn take(from: &[u8]) -> Option<Self> {
        from.try_into().ok()
    }
}

impl Field for String {
    fn len_bytes(&self) -> usize {
        self.len().saturating_add(1)
    }

    fn put(&self, to: &mut [u8]) {
        for (to, from) in to.iter_mut().zip(self.bytes().chain([0])) {
            *to = from;
        }
    }

    fn take(from: &[u8]) -> Option<Self> {
        let (nul, text) = from.split_last()?;
        let text = std::str::from_utf8(text).ok()?;
        (*nul == 0 && !text.contains('\0')).then(|| text.to_owned())
    }
}
