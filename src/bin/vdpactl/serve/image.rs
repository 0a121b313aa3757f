//! Disks whose images have another size than before: a guest sees it at once.

use std::fs::File;
use std::io::{Seek, SeekFrom};
use std::path::PathBuf;

use anyhow::{Context, Result};
use vdpa::Device;
use vdpa::core::{Attr, DeviceSpec, DeviceType, Registry};

/// Bytes of a sector, in which a disk's capacity is told: virtio 1.4 §5.2.4.
const SECTOR: u64 = 512;

/// A disk that is in a file, or in a block device of the system's.
#[derive(Debug)]
pub(super) struct Image {
    path: PathBuf,
    parent: String,
    device: String,
    bytes: u64,
}

impl Image {
    /// The image of a device, if it is a disk that has one.
    pub(super) fn of(spec: &str, device: &Device) -> Result<Option<Self>> {
        let spec = DeviceSpec::parse(spec)?;
        let file = spec.pairs().find(|(key, _)| *key == "file");
        let (DeviceType::Block, Some((_, path))) = (device.info().device_type, file) else {
            return Ok(None);
        };
        let mut image = Self {
            path: PathBuf::from(path),
            parent: spec.parent().to_owned(),
            device: device.info().name.clone(),
            bytes: 0,
        };
        image.bytes = image.size()?;
        Ok(Some(image))
    }

    /// Has the disk take on the size of its image. Answers with the bytes, if they are others than before.
    ///
    /// # Errors
    /// When the image is gone, or the disk cannot have this size; it keeps the one that it had.
    pub(super) fn look(&mut self, registry: &Registry) -> Result<Option<u64>> {
        let bytes = self.size()?;
        if bytes == self.bytes {
            return Ok(None);
        }
        registry.dev_set(&self.parent, &self.device, Attr::Capacity(bytes / SECTOR))?;
        self.bytes = bytes;
        Ok(Some(bytes))
    }

    fn size(&self) -> Result<u64> {
        // Of a block device of the system's, too.
        let size = File::open(&self.path).and_then(|mut file| file.seek(SeekFrom::End(0)));
        let bytes = size.with_context(|| format!("{}: no size can be had", self.path.display()))?;
        Ok(bytes - bytes % SECTOR)
    }
}
