//! Disks whose images have another size than before: a guest sees it at once.

use std::fs::File;
use std::io::{Seek, SeekFrom};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result};
use vdpa::Device;
use vdpa::core::{Attr, DeviceSpec, DeviceType, Registry};
use vdpa::sim::blk::ImageError;

/// Bytes of a sector, in which a disk's capacity is told: virtio 1.4 §5.2.4.
const SECTOR: u64 = 512;

/// Where the bytes of a disk's block are told: virtio 1.4 §5.2.4.
const BLK_SIZE_AT: u32 = 20;

/// What a device is called by its parent: one that was made anew is called otherwise.
#[derive(Clone, Default, Debug)]
pub(super) struct Name(Arc<Mutex<String>>);

impl Name {
    /// The name of a device.
    pub(super) fn of(device: &Device) -> Self {
        let name = Self::default();
        name.set(device);
        name
    }

    /// Another device has taken its place.
    pub(super) fn set(&self, device: &Device) {
        *self.lock() = device.info().name.clone();
    }

    fn lock(&self) -> MutexGuard<'_, String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A disk that is in a file, or in a block device of the system's.
#[derive(Debug)]
pub(super) struct Image {
    path: PathBuf,
    parent: String,
    device: Name,
    /// What its bytes are a multiple of.
    unit: u32,
    bytes: u64,
}

impl Image {
    /// The image of a device, if it is a disk that has one.
    ///
    /// * `name`: of the device, or of the one that takes its place
    pub(super) fn of(spec: &str, device: &Device, name: &Name) -> Result<Option<Self>> {
        let spec = DeviceSpec::parse(spec)?;
        let file = spec.pairs().find(|(key, _)| *key == "file");
        let (DeviceType::Block, Some((_, path))) = (device.info().device_type, file) else {
            return Ok(None);
        };
        let mut block = [0; 4];
        device.read_config(BLK_SIZE_AT, &mut block)?;
        let mut image = Self {
            path: PathBuf::from(path),
            parent: spec.parent().to_owned(),
            device: name.clone(),
            // 0, where the disk is to say none.
            unit: u32::from_le_bytes(block).max(SECTOR as u32),
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
        let name = self.device.lock().clone();
        registry.dev_set(&self.parent, &name, Attr::Capacity(bytes / SECTOR))?;
        self.bytes = bytes;
        Ok(Some(bytes))
    }

    fn size(&self) -> Result<u64> {
        // Of a block device of the system's, too.
        let size = File::open(&self.path).and_then(|mut file| file.seek(SeekFrom::End(0)));
        let bytes = size.with_context(|| format!("{}: no size can be had", self.path.display()))?;
        let path = || self.path.clone();
        // As when the disk is opened.
        if bytes == 0 {
            return Err(ImageError::Empty { path: path() }.into());
        }
        if !bytes.is_multiple_of(self.unit.into()) {
            return Err(ImageError::Unaligned {
                path: path(),
                bytes,
                unit: self.unit,
            }
            .into());
        }
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_that_was_made_anew_takes_on_the_size_of_its_image_as_well() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.as_file_mut().set_len(1 << 20).unwrap();
        let spec = format!("sim:blk,file={}", file.path().display());
        let registry = vdpa::registry();
        let device = registry.open(&spec).unwrap();
        let name = Name::of(&device);
        let mut image = Image::of(&spec, &device, &name).unwrap().unwrap();
        drop(device);
        let device = registry.open(&spec).unwrap();
        name.set(&device);
        file.as_file_mut().set_len(2 << 20).unwrap();
        assert_eq!(image.look(&registry).unwrap(), Some(2 << 20));
        let mut sectors = [0; 8];
        device.read_config(0, &mut sectors).unwrap();
        assert_eq!(u64::from_le_bytes(sectors) * SECTOR, 2 << 20);
    }

    #[test]
    fn a_size_is_a_multiple_of_the_disks_own_block() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.as_file_mut().set_len(1 << 20).unwrap();
        let spec = format!("sim:blk,file={},blk_size=4096", file.path().display());
        let registry = vdpa::registry();
        let device = registry.open(&spec).unwrap();
        let name = Name::of(&device);
        let mut image = Image::of(&spec, &device, &name).unwrap().unwrap();
        file.as_file_mut().set_len((1 << 20) + 512).unwrap();
        let refused = image.look(&registry).unwrap_err().to_string();
        assert!(refused.contains("no multiple of 4096"), "{refused}");
        file.as_file_mut().set_len((1 << 20) + 4096).unwrap();
        assert_eq!(image.look(&registry).unwrap(), Some((1 << 20) + 4096));
    }
}
