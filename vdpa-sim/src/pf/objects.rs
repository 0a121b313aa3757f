//! Resource objects: what a driver makes before it gets or sets parts of a member.

use std::collections::BTreeMap;

use super::command::{Fields, Refusal};

/// How many objects there can be, of each kind, and who says so: the device, or the driver that is content with fewer.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Limits {
    /// For getting parts.
    pub get: u8,
    /// For setting them.
    pub set: u8,
}

impl Limits {
    /// The ids that objects can have: below this.
    fn ids(self) -> u32 {
        u32::from(self.get).saturating_add(self.set.into())
    }

    fn of(self, purpose: Purpose) -> u8 {
        match purpose {
            Purpose::Get => self.get,
            Purpose::Set => self.set,
        }
    }
}

/// What an object is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Purpose {
    Get,
    Set,
}

impl Purpose {
    fn parse(data: Fields<'_>) -> Result<Self, Refusal> {
        match data.u8(0) {
            0 => Ok(Self::Get),
            1 => Ok(Self::Set),
            _ => Err(Refusal::FIELD),
        }
    }

    /// The object's data, as it was given.
    fn to_bytes(self) -> Vec<u8> {
        let kind = match self {
            Self::Get => 0,
            Self::Set => 1,
        };
        vec![kind, 0, 0, 0, 0, 0, 0, 0]
    }
}

/// Which object: of the only type there is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct ObjectId {
    member: u16,
    id: u32,
}

/// Bytes of what begins the data of every command about objects.
pub(super) const OBJECT_HEADER: usize = 8;

/// Bytes of that, and of the flags behind it.
const WITH_FLAGS: usize = 16;

impl ObjectId {
    /// Reads the header. `None`: it is of a type that there is not.
    pub(super) fn parse(member: u16, data: Fields<'_>) -> Option<Self> {
        (data.u16(0) == 0).then_some(Self {
            member,
            id: data.u32(4),
        })
    }
}

/// The objects of all members.
#[derive(Default, Debug)]
pub(super) struct Objects {
    limits: Limits,
    made: BTreeMap<ObjectId, Purpose>,
}

impl Objects {
    /// Sets how many the driver wants.
    pub(super) fn set_limits(&mut self, limits: Limits, device: Limits) -> Result<(), Refusal> {
        if limits.get > device.get || limits.set > device.set {
            return Err(Refusal::FIELD);
        }
        if limits != self.limits && !self.made.is_empty() {
            return Err(Refusal::BUSY);
        }
        self.limits = limits;
        Ok(())
    }

    pub(super) fn create(&mut self, member: u16, data: Fields<'_>) -> Result<(), Refusal> {
        let id = ObjectId::parse(member, data).ok_or(Refusal::FIELD)?;
        let purpose = Purpose::parse(data.rest(WITH_FLAGS))?;
        if id.id >= self.limits.ids() {
            return Err(Refusal::FIELD);
        }
        if self.made.contains_key(&id) {
            return Err(Refusal::EXISTS);
        }
        self.check_room(purpose)?;
        self.made.insert(id, purpose);
        Ok(())
    }

    pub(super) fn modify(&mut self, member: u16, data: Fields<'_>) -> Result<(), Refusal> {
        let (id, old) = self.find(member, data)?;
        let purpose = Purpose::parse(data.rest(WITH_FLAGS))?;
        if purpose != old {
            self.check_room(purpose)?;
            self.made.insert(id, purpose);
        }
        Ok(())
    }

    pub(super) fn query(&self, member: u16, data: Fields<'_>) -> Result<Vec<u8>, Refusal> {
        let (_, purpose) = self.find(member, data)?;
        Ok(purpose.to_bytes())
    }

    pub(super) fn destroy(&mut self, member: u16, data: Fields<'_>) -> Result<(), Refusal> {
        let (id, _) = self.find(member, data)?;
        self.made.remove(&id);
        Ok(())
    }

    /// For commands that need an object for `purpose`.
    pub(super) fn check(
        &self,
        member: u16,
        data: Fields<'_>,
        purpose: Purpose,
    ) -> Result<(), Refusal> {
        match self.find(member, data)? {
            (_, found) if found == purpose => Ok(()),
            _ => Err(Refusal::FIELD),
        }
    }

    /// The members are others by now.
    pub(super) fn forget(&mut self) {
        self.made.clear();
    }

    fn find(&self, member: u16, data: Fields<'_>) -> Result<(ObjectId, Purpose), Refusal> {
        let id = ObjectId::parse(member, data).ok_or(Refusal::NO_ENTRY)?;
        let purpose = self.made.get(&id).ok_or(Refusal::NO_ENTRY)?;
        Ok((id, *purpose))
    }

    fn check_room(&self, purpose: Purpose) -> Result<(), Refusal> {
        let made = self.made.values().filter(|made| **made == purpose).count();
        if made < usize::from(self.limits.of(purpose)) {
            Ok(())
        } else {
            Err(Refusal::NO_SPACE)
        }
    }
}
