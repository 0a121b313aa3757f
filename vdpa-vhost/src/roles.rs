//! How many queues a device has, and which of them exist with the features accepted.

use vdpa_core::bits::net;
use vdpa_core::config::{BlockConfig, NetConfig};
use vdpa_core::{DeviceType, Features, bits};

/// What decides it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Roles {
    device_type: DeviceType,
    /// Queue pairs of a network device; of another, queues.
    units: u16,
}

impl Roles {
    /// * `config`: the configuration, as far as there is one
    /// * `told`: how many queues there are of a type whose configuration does not say
    pub(crate) fn new(
        device_type: DeviceType,
        offered: Features,
        config: &[u8],
        told: u16,
    ) -> Self {
        let units = match device_type {
            DeviceType::Net => {
                let steering = offered.contains(net::MQ) || offered.contains(net::RSS);
                let pairs = NetConfig::from_bytes(config).max_virtqueue_pairs();
                if steering { pairs } else { 1 }
            }
            DeviceType::Block => {
                let queues = BlockConfig::from_bytes(config).num_queues();
                let several = offered.contains(bits::block::MQ);
                if several { queues } else { 1 }
            }
            _ => told,
        };
        Self { device_type, units }
    }

    /// How many queues there are at most, with any of these features.
    pub(crate) fn count(&self, offered: Features) -> u16 {
        match self.device_type {
            DeviceType::Net => {
                let control = u16::from(offered.contains(net::CTRL_VQ));
                self.units.saturating_mul(2).saturating_add(control)
            }
            _ => self.units,
        }
    }

    /// Whether queue `q` exists with these features.
    ///
    /// # Spec
    /// virtio 1.4 §5.1.2: the control queue is behind the pairs, of which there is one without MQ and RSS. §5.2.2: a disk has
    /// one queue without MQ.
    pub(crate) fn exists(&self, q: u16, accepted: Features) -> bool {
        match self.device_type {
            DeviceType::Net => {
                let several = accepted.contains(net::MQ) || accepted.contains(net::RSS);
                let pairs = if several { self.units } else { 1 };
                let control = u16::from(accepted.contains(net::CTRL_VQ));
                q < pairs.saturating_mul(2).saturating_add(control)
            }
            DeviceType::Block if !accepted.contains(bits::block::MQ) => q < 1,
            _ => q < self.units,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_control_queue_of_a_card_is_behind_the_pairs_that_there_are() {
        let config = NetConfig::new().with_max_virtqueue_pairs(4).to_bytes();
        let offered = net::MQ.mask().with(net::CTRL_VQ);
        let roles = Roles::new(DeviceType::Net, offered, &config, 0);
        assert_eq!(roles.count(offered), 9);
        assert!(roles.exists(8, offered) && !roles.exists(9, offered));
        let one = net::CTRL_VQ.mask();
        assert!(roles.exists(2, one) && !roles.exists(3, one));
        assert!(!roles.exists(2, Features::NONE));
        let plain = Roles::new(DeviceType::Net, Features::NONE, &[], 0);
        assert_eq!(plain.count(Features::NONE), 2);
    }

    #[test]
    fn a_disk_has_as_many_queues_as_its_configuration_says() {
        let config = BlockConfig::new().with_num_queues(3).to_bytes();
        let several = bits::block::MQ.mask();
        let count = |offered| Roles::new(DeviceType::Block, offered, &config, 9).count(offered);
        assert_eq!((count(several), count(Features::NONE)), (3, 1));
        let roles = Roles::new(DeviceType::Block, several, &config, 9);
        assert!(roles.exists(2, several) && !roles.exists(1, Features::NONE));
        assert_eq!(
            Roles::new(DeviceType::Socket, several, &[], 3).count(several),
            3
        );
    }
}
