//! What kind of device it is: the virtio device ids.
//!
//! All ids that virtio 1.4 §5 assigns are here, those it describes and those it only reserves a
//! number for. The id decides what a feature bit and a config field mean.

use std::fmt;
use std::str::FromStr;

/// A virtio device id that virtio 1.4 assigns to nothing.
///
/// Only [`DeviceType::from_id`] makes one, so that no assigned id hides in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnassignedId(u32);

impl UnassignedId {
    /// The id as the device gave it.
    pub const fn get(self) -> u32 {
        self.0
    }
}

macro_rules! device_types {
    ($( $variant:ident = $id:literal, $name:literal $(| $alias:literal)*, $about:literal; )*) => {
        /// The type of a virtio device (virtio 1.4 §5).
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[non_exhaustive]
        pub enum DeviceType {
            $(
                #[doc = concat!("Id ", stringify!($id), ": ", $about, ".")]
                $variant,
            )*
            /// An id that virtio 1.4 assigns to nothing: 0, 14, 15, 37, 50 and above.
            Unassigned(UnassignedId),
        }

        impl DeviceType {
            /// Every assigned type, in ascending order of id.
            pub const ALL: &[Self] = &[$( Self::$variant ),*];

            /// The type with this id; total, since a device may give any number.
            pub const fn from_id(id: u32) -> Self {
                match id {
                    $( $id => Self::$variant, )*
                    other => Self::Unassigned(UnassignedId(other)),
                }
            }

            /// The virtio device id.
            pub const fn id(self) -> u32 {
                match self {
                    $( Self::$variant => $id, )*
                    Self::Unassigned(id) => id.get(),
                }
            }

            /// The short name, `net` or `block`; `None` for an unassigned id.
            pub const fn name(self) -> Option<&'static str> {
                match self {
                    $( Self::$variant => Some($name), )*
                    Self::Unassigned(_) => None,
                }
            }

            /// What it is in a few words, for listings.
            pub const fn about(self) -> &'static str {
                match self {
                    $( Self::$variant => $about, )*
                    Self::Unassigned(_) => "an id that virtio 1.4 does not assign",
                }
            }

            fn by_name(name: &str) -> Option<Self> {
                match name {
                    $( $name $(| $alias)* => Some(Self::$variant), )*
                    _ => None,
                }
            }
        }
    };
}

device_types! {
    Net = 1, "net", "network device";
    Block = 2, "block" | "blk", "block device";
    Console = 3, "console", "console";
    Entropy = 4, "entropy" | "rng", "entropy source";
    Balloon = 5, "balloon", "traditional memory balloon";
    IoMemory = 6, "iomem", "io memory";
    Rpmsg = 7, "rpmsg", "remote processor messaging";
    Scsi = 8, "scsi", "scsi host";
    Plan9 = 9, "9p", "9P transport";
    Wlan = 10, "wlan", "mac80211 wireless lan";
    RprocSerial = 11, "rproc-serial", "remote processor serial line";
    Caif = 12, "caif", "CAIF modem";
    MemoryBalloon = 13, "memory-balloon", "memory balloon";
    Gpu = 16, "gpu", "graphics processor";
    Rtc = 17, "rtc" | "clock", "real time clock";
    Input = 18, "input", "input device";
    Socket = 19, "socket" | "vsock", "socket device";
    Crypto = 20, "crypto", "crypto device";
    SignalDistribution = 21, "signal-distribution", "signal distribution module";
    Pstore = 22, "pstore", "persistent store";
    Iommu = 23, "iommu", "IOMMU";
    Memory = 24, "mem" | "memory", "memory device";
    Sound = 25, "sound" | "snd", "sound device";
    FileSystem = 26, "fs", "file system device";
    Pmem = 27, "pmem", "persistent memory";
    Rpmb = 28, "rpmb", "replay protected memory block";
    WirelessSimulation = 29, "hwsim", "mac80211 wireless simulation";
    VideoEncoder = 30, "video-encoder", "video encoder";
    VideoDecoder = 31, "video-decoder", "video decoder";
    Scmi = 32, "scmi", "system control and management interface";
    NitroSecureModule = 33, "nitro-secure-module", "Nitro secure module";
    I2c = 34, "i2c", "I2C adapter";
    Watchdog = 35, "watchdog", "watchdog";
    Can = 36, "can", "CAN controller";
    ParameterServer = 38, "parameter-server", "parameter server";
    AudioPolicy = 39, "audio-policy", "audio policy device";
    Bluetooth = 40, "bluetooth" | "bt", "Bluetooth device";
    Gpio = 41, "gpio", "GPIO controller";
    Rdma = 42, "rdma", "RDMA device";
    Camera = 43, "camera", "camera";
    Ism = 44, "ism", "internal shared memory device";
    Spi = 45, "spi", "SPI controller";
    Tee = 46, "tee", "trusted execution environment";
    CpuBalloon = 47, "cpu-balloon", "processor balloon";
    Media = 48, "media", "media device";
    Usb = 49, "usb", "USB controller";
}

impl fmt::Display for DeviceType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.pad(name),
            None => f.pad(&format!("type-{}", self.id())),
        }
    }
}

/// A name that no device type has.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no virtio device type is called `{name}`")]
pub struct UnknownDeviceType {
    /// The name as it was given.
    pub name: String,
}

impl FromStr for DeviceType {
    type Err = UnknownDeviceType;

    /// Takes what [`DeviceType`] prints, in any case, plus the everyday short forms `blk`, `rng`,
    /// `vsock`, `snd`, `bt`, `clock` and `memory`.
    fn from_str(text: &str) -> Result<Self, UnknownDeviceType> {
        let name = text.to_ascii_lowercase();
        let by_number = || Some(Self::from_id(name.strip_prefix("type-")?.parse().ok()?));
        Self::by_name(&name)
            .or_else(by_number)
            .ok_or_else(|| UnknownDeviceType { name: text.into() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use virtio_bindings::virtio_ids as kernel;

    #[test]
    fn ids_are_those_of_the_kernel_header() {
        let pairs = [
            (DeviceType::Net, kernel::VIRTIO_ID_NET),
            (DeviceType::Block, kernel::VIRTIO_ID_BLOCK),
            (DeviceType::Console, kernel::VIRTIO_ID_CONSOLE),
            (DeviceType::Entropy, kernel::VIRTIO_ID_RNG),
            (DeviceType::Balloon, kernel::VIRTIO_ID_BALLOON),
            (DeviceType::IoMemory, kernel::VIRTIO_ID_IOMEM),
            (DeviceType::Rpmsg, kernel::VIRTIO_ID_RPMSG),
            (DeviceType::Scsi, kernel::VIRTIO_ID_SCSI),
            (DeviceType::Plan9, kernel::VIRTIO_ID_9P),
            (DeviceType::Wlan, kernel::VIRTIO_ID_MAC80211_WLAN),
            (DeviceType::RprocSerial, kernel::VIRTIO_ID_RPROC_SERIAL),
            (DeviceType::Caif, kernel::VIRTIO_ID_CAIF),
            (DeviceType::MemoryBalloon, kernel::VIRTIO_ID_MEMORY_BALLOON),
            (DeviceType::Gpu, kernel::VIRTIO_ID_GPU),
            (DeviceType::Rtc, kernel::VIRTIO_ID_CLOCK),
            (DeviceType::Input, kernel::VIRTIO_ID_INPUT),
            (DeviceType::Socket, kernel::VIRTIO_ID_VSOCK),
            (DeviceType::Crypto, kernel::VIRTIO_ID_CRYPTO),
            (
                DeviceType::SignalDistribution,
                kernel::VIRTIO_ID_SIGNAL_DIST,
            ),
            (DeviceType::Pstore, kernel::VIRTIO_ID_PSTORE),
            (DeviceType::Iommu, kernel::VIRTIO_ID_IOMMU),
            (DeviceType::Memory, kernel::VIRTIO_ID_MEM),
            (DeviceType::Sound, kernel::VIRTIO_ID_SOUND),
            (DeviceType::FileSystem, kernel::VIRTIO_ID_FS),
            (DeviceType::Pmem, kernel::VIRTIO_ID_PMEM),
            (DeviceType::Rpmb, kernel::VIRTIO_ID_RPMB),
            (
                DeviceType::WirelessSimulation,
                kernel::VIRTIO_ID_MAC80211_HWSIM,
            ),
            (DeviceType::VideoEncoder, kernel::VIRTIO_ID_VIDEO_ENCODER),
            (DeviceType::VideoDecoder, kernel::VIRTIO_ID_VIDEO_DECODER),
            (DeviceType::Scmi, kernel::VIRTIO_ID_SCMI),
            (
                DeviceType::NitroSecureModule,
                kernel::VIRTIO_ID_NITRO_SEC_MOD,
            ),
            (DeviceType::I2c, kernel::VIRTIO_ID_I2C_ADAPTER),
            (DeviceType::Watchdog, kernel::VIRTIO_ID_WATCHDOG),
            (DeviceType::Can, kernel::VIRTIO_ID_CAN),
            (DeviceType::ParameterServer, kernel::VIRTIO_ID_PARAM_SERV),
            (DeviceType::AudioPolicy, kernel::VIRTIO_ID_AUDIO_POLICY),
            (DeviceType::Bluetooth, kernel::VIRTIO_ID_BT),
            (DeviceType::Gpio, kernel::VIRTIO_ID_GPIO),
        ];
        for (device, id) in pairs {
            assert_eq!(device.id(), id, "{device}");
        }
        // Ids 42 to 49 are newer than the header.
        assert_eq!(pairs.len() + 8, DeviceType::ALL.len());
        // Virtio 1.4 leaves 37 out, although the header has a name for it.
        assert_eq!(DeviceType::from_id(kernel::VIRTIO_ID_DMABUF).name(), None);
    }

    #[test]
    fn every_id_leads_back_to_its_type_and_every_name_too() {
        for &device in DeviceType::ALL {
            assert_eq!(DeviceType::from_id(device.id()), device);
            assert_eq!(device.to_string().parse(), Ok(device));
            assert_eq!(device.to_string().to_uppercase().parse(), Ok(device));
        }
        for id in 0..5000 {
            let device = DeviceType::from_id(id);
            assert_eq!(device.id(), id);
            assert_eq!(device.to_string().parse(), Ok(device));
        }
        assert!(DeviceType::ALL.is_sorted_by_key(|device| device.id()));
        assert_eq!(DeviceType::from_id(u32::MAX).to_string(), "type-4294967295");
    }

    #[test]
    fn short_forms_are_taken_and_other_names_are_not() {
        assert_eq!("blk".parse(), Ok(DeviceType::Block));
        assert_eq!("rng".parse(), Ok(DeviceType::Entropy));
        assert_eq!("vsock".parse(), Ok(DeviceType::Socket));
        assert_eq!("type-1".parse(), Ok(DeviceType::Net));
        for wrong in ["", "nett", "type-", "type--1", "type-4294967296"] {
            let error = wrong.parse::<DeviceType>().unwrap_err();
            assert!(error.to_string().contains(wrong));
        }
    }
}
