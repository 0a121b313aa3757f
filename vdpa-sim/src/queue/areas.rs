//! Finding the areas of a queue: before it starts, and for each batch.

use std::cell::Cell;

use vdpa_core::Area;
use vdpa_mem::{Bytes, Section, Window};
use vdpa_ring::{Areas, DeviceRing, Record};

use super::{Halt, Queue, QueueMem, TrackError, Tracked};

impl Queue {
    /// Keeps a record of what is in flight in these bytes, and goes on by what is in them.
    ///
    /// # Errors
    /// When they are no record of this queue, or an area is not mapped.
    pub fn track(&mut self, cells: Window, section: &Section<'_>) -> Result<(), TrackError> {
        let areas = Areas {
            descriptor: self.descriptor.open(section).map_err(TrackError::Area)?,
            driver: self.driver.open(section).map_err(TrackError::Area)?,
            device: self.device.open(section).map_err(TrackError::Area)?,
        };
        let (format, size, state) = (self.ring.format(), self.ring.size(), self.ring.state());
        let opened = Record::open(format, size, &cells.bytes(), &areas, Some(state));
        let (record, recovered) = opened.map_err(TrackError::Record)?;
        let state = Some(recovered.state);
        self.ring =
            DeviceRing::new(format, size, self.features, state).map_err(TrackError::State)?;
        self.ring.note(self.batch.capacity());
        self.tally.again = recovered.again.len() as u64;
        self.ring.resubmit(recovered.again);
        self.tracked = Some(Box::new(Tracked { record, cells }));
        Ok(())
    }

    /// Checks that each area is one aligned piece of memory in this process. What is not mapped yet is no fault of a
    /// queue with page requests.
    ///
    /// # Errors
    /// [`Halt`] with the first area that is not.
    pub fn check(&mut self, section: &Section<'_>) -> Result<(), Halt> {
        let misses = self.misses;
        for (place, align) in [
            (&mut self.descriptor, 16),
            (&mut self.driver, 4),
            (&mut self.device, 4),
        ] {
            if misses && place.missing(section).is_some() {
                continue;
            }
            let bytes = place.open(section)?;
            // A split driver area is made of 16-bit cells alone.
            let align = if place.area == Area::Driver && place.len > 4 {
                2
            } else {
                align
            };
            if !bytes.hva().is_aligned(align) {
                let (area, at) = (place.area, place.at);
                return Err(Halt::Scattered { area, at });
            }
        }
        Ok(())
    }

    /// Finds the areas, for one batch.
    ///
    /// # Errors
    /// [`Halt`] when one is not there any more; [`Halt::Waiting`] while what the queue waits for is not mapped.
    #[inline]
    pub fn open<'s>(&mut self, section: &'s Section<'s>) -> Result<QueueMem<'s>, Halt> {
        if self.misses {
            self.check_waits(section)?;
        }
        self.areas(section)
    }

    /// The same for giving chains back alone: what the next one in the ring waits for holds up none that is done.
    ///
    /// # Errors
    /// [`Halt`] when an area is not there any more, or not yet.
    pub fn open_to_return<'s>(&mut self, section: &'s Section<'s>) -> Result<QueueMem<'s>, Halt> {
        if self.misses {
            self.check_areas(section)?;
        }
        self.areas(section)
    }

    #[inline]
    fn areas<'s>(&mut self, section: &'s Section<'s>) -> Result<QueueMem<'s>, Halt> {
        let areas = match self.spots.find(section) {
            Ok([descriptor, driver, device]) => Areas {
                descriptor,
                driver,
                device,
            },
            Err(_) => self.open_each(section)?,
        };
        Ok(QueueMem {
            section,
            areas,
            tables: Cell::new(self.tables),
            misses: self.misses,
            gap: Cell::new(None),
        })
    }

    /// Finds the areas one by one, or says which is not there.
    #[cold]
    fn open_each<'s>(&mut self, section: &'s Section<'s>) -> Result<Areas<Bytes<'s>>, Halt> {
        Ok(Areas {
            descriptor: self.descriptor.open(section)?,
            driver: self.driver.open(section)?,
            device: self.device.open(section)?,
        })
    }
}
