//! The keys of a device string, read by type.

use std::fmt;
use std::ops::RangeInclusive;

use super::{DeviceSpec, FromValue, Problem, SpecError, Value, error, list};
use crate::device_type::DeviceType;
use crate::features::Features;

/// Reads the keys of a [`DeviceSpec`] one by one and remembers which were asked for.
///
/// A parent takes what it knows and then calls [`Keys::finish`], so that a key it does not know
/// is an error and not silence.
#[derive(Debug)]
#[must_use = "keys that nobody asked for are an error: call `finish`"]
pub struct Keys<'s> {
    spec: &'s DeviceSpec,
    /// Which pair was taken, by its place in the string.
    taken: Vec<bool>,
}

impl<'s> Keys<'s> {
    pub(super) fn new(spec: &'s DeviceSpec) -> Self {
        Self {
            spec,
            taken: vec![false; spec.pairs.len()],
        }
    }

    /// The value of a key as it stands there; `None` if the key was not given. Keys are lower
    /// case, and their case counts.
    pub fn value(&mut self, key: &str) -> Option<Value<'s>> {
        let text = &self.spec.text;
        for (pair, taken) in self.spec.pairs.iter().zip(&mut self.taken) {
            let name = &text[pair.key.clone()];
            if name == key {
                *taken = true;
                return Some(Value::new(text, name, pair.value.clone()));
            }
        }
        None
    }

    /// The value of a key: an integer of any width, `bool`, [`crate::config::Mac`], `String`,
    /// `PathBuf`. `None` if the key was not given.
    ///
    /// # Errors
    /// [`SpecError`]: the value can't be read as a `T`.
    pub fn take<T: FromValue>(&mut self, key: &str) -> Result<Option<T>, SpecError> {
        self.take_with(key, T::from_value)
    }

    /// An integer in a range.
    ///
    /// # Errors
    /// [`SpecError`]: no number, or out of the range.
    pub fn take_in<T>(
        &mut self,
        key: &str,
        range: RangeInclusive<T>,
    ) -> Result<Option<T>, SpecError>
    where
        T: TryFrom<u64> + PartialOrd + fmt::Display,
    {
        self.take_with(key, |value| value.integer(range))
    }

    /// A size in bytes (`64M`) in a range.
    ///
    /// # Errors
    /// [`SpecError`]: no size, or out of the range.
    pub fn take_size(
        &mut self,
        key: &str,
        range: RangeInclusive<u64>,
    ) -> Result<Option<u64>, SpecError> {
        self.take_with(key, |value| value.size(range))
    }

    /// What one of these names stands for.
    ///
    /// # Errors
    /// [`SpecError`] with the legal names.
    pub fn take_one_of<T: Clone>(
        &mut self,
        key: &str,
        names: &[(&str, T)],
    ) -> Result<Option<T>, SpecError> {
        self.take_with(key, |value| value.one_of(names))
    }

    /// What a device is to offer, by the names of its features.
    ///
    /// - `MRG_RXBUF+CTRL_VQ`: these, and what every device must have (`VERSION_1`).
    /// - `+RSS-MRG_RXBUF`: what `default` has, `RSS` more and `MRG_RXBUF` less. What depends on
    ///   a feature that is taken out goes with it, unless it is named itself.
    ///
    /// Names are taken in any case, with or without the specification's prefix; `bit-77` where
    /// there is none. `possible` is all that the device can offer.
    ///
    /// # Errors
    /// [`SpecError`]: a name that is not in `possible`, or a set that may not be offered
    /// ([`crate::graph::check_offered`]), with the reason.
    pub fn take_features(
        &mut self,
        key: &str,
        device: DeviceType,
        possible: Features,
        default: Features,
    ) -> Result<Option<Features>, SpecError> {
        self.take_with(key, |value| {
            list::features(value, device, possible, default)
        })
    }

    /// A value of the parent's own kind.
    ///
    /// # Errors
    /// Those of `read`.
    pub fn take_with<T>(
        &mut self,
        key: &str,
        read: impl FnOnce(&Value<'s>) -> Result<T, SpecError>,
    ) -> Result<Option<T>, SpecError> {
        self.value(key).map(|value| read(&value)).transpose()
    }

    /// The end: nothing may be left. `legal` are all keys of the parent, for the error.
    ///
    /// # Errors
    /// [`SpecError`] for the first key that was not taken: not legal at all, or legal and without
    /// a meaning beside the others.
    pub fn finish(self, legal: &[&str]) -> Result<(), SpecError> {
        let text = &self.spec.text;
        let left = self.spec.pairs.iter().zip(&self.taken);
        let Some((pair, _)) = left.into_iter().find(|(_, taken)| !**taken) else {
            return Ok(());
        };
        let key = text[pair.key.clone()].to_owned();
        let problem = if legal.contains(&key.as_str()) {
            Problem::UnusedKey { key }
        } else {
            let legal = error::owned(legal);
            Problem::UnknownKey { key, legal }
        };
        Err(SpecError::new(text, pair.key.clone(), problem))
    }
}
