//! Who has a function, changed: to VFIO, and back.
//!
//! ```text
//!   Wish ──▶ plan: may it be? what has to be written? ──▶ record, kept whole ──▶ steps, one by one ──▶ look again
//!                    │ no: an error, nothing is done                                  │ failed            │ not so
//!                    ▼                                                                ▼                   ▼
//!                                                                        back to what it was, and an error that says
//!                                                                        where the function is
//! ```

use std::path::Path;

use super::function::gives_away;
use super::plan::{state, to_anybody, to_state, to_virtuals};
use super::records::{Record, Records, State, VirtualState, is_driver};
use super::rehearsal::DRIVERS;
use super::{Address, Fact, Function, Host, Kernel, Step, SysfsError, Usage};

/// The driver that gives functions to processes.
const VFIO: &str = "vfio-pci";

/// What is to become of a function.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wish {
    /// VFIO has it.
    Bind,
    /// VFIO has it no longer: whoever had it before has it again, or, where that is not known, whoever takes it. Then
    /// VFIO had it before, which [`Wish::Restore`] comes back to.
    Unbind,
    /// It is as it was before it was changed first, with its virtual functions.
    Restore,
    /// It has so many virtual functions, which no driver takes by itself; 0 takes them away.
    VirtualFunctions(u16),
}

/// Whether a function in use is changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Regard {
    /// It is left alone.
    Spare,
    /// It is changed all the same. A process that has it open is waited for.
    Force,
}

/// What has to be written, and what is to come of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Plan {
    /// The function.
    pub address: Address,
    /// What has to be written, in this order; nothing, if all is as wished.
    pub steps: Vec<Step>,
    pub(super) record: Record,
    pub(super) settled: Record,
    pub(super) goal: Goal,
    pub(super) before: Before,
}

/// What is to come of a plan.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(super) struct Goal {
    pub(super) driver: Option<Driver>,
    pub(super) virtuals: Option<u16>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Driver {
    Exactly(Option<String>),
    NotVfio,
}

/// What to go back to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Before {
    pub(super) state: State,
    pub(super) virtuals: Option<VirtualState>,
}

/// What was done.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Change {
    /// The function as it was.
    pub before: Function,
    /// The function as it is.
    pub after: Function,
    /// What was written; nothing, if all was as wished.
    pub steps: Vec<Step>,
}

/// The bindings of functions to drivers.
pub struct Bindings<'a> {
    pub(super) host: &'a Host,
    pub(super) kernel: &'a dyn Kernel,
    pub(super) records: Records,
}

impl<'a> Bindings<'a> {
    /// The bindings of a system.
    ///
    /// * `kernel`: what acts on writes, such as [`Host::kernel`]
    /// * `records`: a directory for what was changed, such as [`Host::state`]; made when it is needed. It should not
    ///   outlast a boot, as bindings do not.
    pub fn new(host: &'a Host, kernel: &'a dyn Kernel, records: &Path) -> Self {
        Self {
            host,
            kernel,
            records: Records::new(&host.tree, records),
        }
    }

    /// The functions that were changed, and are not as they were.
    ///
    /// # Errors
    /// When the records cannot be listed.
    pub fn changed(&self) -> Result<Vec<Address>, SysfsError> {
        self.records.addresses()
    }

    /// What a wish takes. Nothing is written.
    ///
    /// # Errors
    /// When it must not or cannot be.
    pub fn plan(&self, at: Address, wish: Wish, regard: Regard) -> Result<Plan, SysfsError> {
        let function = match (self.host.function(at), wish) {
            (Ok(function), _) => function,
            // It went away, a virtual function as a rule: nothing is left to restore.
            (Err(SysfsError::NoSuchFunction { .. }), Wish::Restore) => return self.gone(at),
            (Err(error), _) => return Err(error),
        };
        let now = state(&function)?;
        let drivers = now.driver.iter().chain(&now.only);
        if let Some(name) = drivers.into_iter().find(|name| !is_driver(name)) {
            return Err(SysfsError::Unreadable {
                address: at,
                what: "driver",
                why: format!("`{}` is no name of one", super::address::excerpt(name)),
            });
        }
        let kept = self.record(&function, wish)?;
        let draft = Plan {
            address: at,
            steps: Vec::new(),
            record: kept.clone(),
            settled: kept,
            goal: Goal::default(),
            before: Before {
                state: now,
                virtuals: None,
            },
        };
        match wish {
            Wish::Bind => self.plan_bind(&function, draft, regard),
            Wish::Unbind => self.plan_unbind(&function, draft, regard),
            Wish::Restore => self.plan_restore(&function, draft, regard),
            Wish::VirtualFunctions(count) => {
                self.plan_virtuals(&function, draft, Some(count), regard)
            }
        }
    }

    /// What is kept of the function, or an empty record.
    fn record(&self, function: &Function, wish: Wish) -> Result<Record, SysfsError> {
        let address = function.address;
        let number = |what, fact: &Fact<u16>| {
            match fact {
                Fact::Is(number) => Ok(*number),
                Fact::Absent => Err("there is no such file".to_owned()),
                Fact::Unknown(why) => Err(why.clone()),
            }
            .map_err(|why| SysfsError::Unreadable { address, what, why })
        };
        let numbers = (
            number("vendor", &function.vendor)?,
            number("device", &function.device)?,
        );
        let kept = match self.records.of(address)? {
            Some(kept) if kept.numbers == numbers => Some(kept),
            Some(kept) if wish == Wish::Restore => {
                let text = |(vendor, device)| format!("{vendor:04x}:{device:04x}");
                return Err(SysfsError::Replaced {
                    address,
                    was: text(kept.numbers),
                    is: text(numbers),
                });
            }
            _ => None,
        };
        Ok(kept.unwrap_or(Record {
            address,
            numbers,
            state: None,
            virtuals: None,
        }))
    }

    fn gone(&self, address: Address) -> Result<Plan, SysfsError> {
        let kept = self.records.of(address)?;
        let mut settled = kept.ok_or(SysfsError::NoSuchFunction { address })?;
        (settled.state, settled.virtuals) = (None, None);
        Ok(Plan {
            address,
            steps: Vec::new(),
            record: settled.clone(),
            settled,
            goal: Goal::default(),
            before: Before {
                state: State {
                    driver: None,
                    only: None,
                },
                virtuals: None,
            },
        })
    }

    fn plan_bind(&self, of: &Function, mut plan: Plan, regard: Regard) -> Result<Plan, SysfsError> {
        let address = of.address;
        if of.is_bridge() {
            return Err(SysfsError::Bridge { address });
        }
        let group = match &of.iommu_group {
            Fact::Is(number) => Some(self.host.group(*number)),
            Fact::Absent => None,
            Fact::Unknown(why) => {
                return Err(SysfsError::Unreadable {
                    address,
                    what: "IOMMU group",
                    why: why.clone(),
                });
            }
        };
        if group.is_none_or(|group| group.no_iommu) {
            let mend = self.host.iommu().mend();
            return Err(SysfsError::NoIommu { address, mend });
        }
        let vfio = State {
            driver: Some(VFIO.to_owned()),
            only: Some(VFIO.to_owned()),
        };
        // One of the drivers made for one kind of card is VFIO too.
        if of.is_vfio() {
            return Ok(plan);
        }
        self.has_driver(address, VFIO)?;
        self.spared(of, regard)?;
        plan.steps = to_state(address, &plan.before.state, &vfio);
        plan.goal.driver = Some(Driver::Exactly(vfio.driver.clone()));
        plan.record.state.get_or_insert(plan.before.state.clone());
        // They go with the driver that made them.
        if let Some(now @ VirtualState { made: 1.., .. }) = self.made(of) {
            plan.before.virtuals = Some(now);
            plan.record.virtuals.get_or_insert(now);
        }
        plan.settled = plan.record.clone();
        // Another program had bound it, and it was unbound in between.
        plan.settled.state = plan.settled.state.filter(|was| *was != vfio);
        Ok(plan)
    }

    fn plan_unbind(&self, of: &Function, plan: Plan, regard: Regard) -> Result<Plan, SysfsError> {
        let vfio = |state: &State| state.driver.as_deref().is_some_and(gives_away);
        match &plan.record.state {
            // VFIO had it at first, whoever bound it: unbinding is to take it away.
            Some(was) if vfio(was) => {
                // A crash left it half-way.
                let halfway = plan.before.state.driver.is_none();
                self.plan_away(of, plan, halfway, regard)
            }
            Some(_) => self.plan_back(of, plan, regard),
            None => self.plan_away(of, plan, false, regard),
        }
    }

    /// From VFIO to whoever takes it. What it was like stays recorded: it is not like that again.
    ///
    /// * `halfway`: it is not VFIO's any more, and was not offered to anybody yet
    fn plan_away(
        &self,
        of: &Function,
        mut plan: Plan,
        halfway: bool,
        regard: Regard,
    ) -> Result<Plan, SysfsError> {
        if !of.is_vfio() && !halfway {
            return Ok(plan);
        }
        if !halfway {
            self.spared(of, regard)?;
        }
        plan.goal.driver = Some(Driver::NotVfio);
        plan.steps
            .extend(to_anybody(of.address, &plan.before.state));
        plan.record.state.get_or_insert(plan.before.state.clone());
        plan.settled = plan.record.clone();
        Ok(plan)
    }

    /// Back to who had it at first.
    fn plan_back(&self, of: &Function, mut plan: Plan, regard: Regard) -> Result<Plan, SysfsError> {
        let address = of.address;
        let Some(was) = &plan.record.state else {
            return Ok(plan);
        };
        plan.goal.driver = Some(Driver::Exactly(was.driver.clone()));
        let steps = to_state(address, &plan.before.state, was);
        if let Some(Driver::Exactly(Some(driver))) = &plan.goal.driver
            && plan.before.state.driver.as_ref() != Some(driver)
        {
            self.has_driver(address, driver)?;
        }
        // Virtual functions that the plan takes away itself are nobody's loss.
        if steps.iter().any(|step| step.path.ends_with("/unbind")) && plan.goal.virtuals != Some(0)
        {
            self.spared(of, regard)?;
        }
        plan.steps.extend(steps);
        plan.settled.state = None;
        Ok(plan)
    }

    /// A driver that goes takes virtual functions with it, and one that is not there makes none.
    fn plan_restore(&self, of: &Function, plan: Plan, regard: Regard) -> Result<Plan, SysfsError> {
        let virtuals = |plan: Plan| match plan.record.virtuals {
            Some(_) => self.plan_virtuals(of, plan, None, regard),
            None => Ok(plan),
        };
        let driver = |plan: Plan| self.plan_back(of, plan, regard);
        match plan.record.virtuals {
            Some(VirtualState { made: 1.., .. }) => virtuals(driver(plan)?),
            // A crash left it without one.
            _ if of.driver == Fact::Absent => virtuals(driver(plan)?),
            _ => driver(virtuals(plan)?),
        }
    }

    /// * `count`: as many as there were at first, for `None`
    fn plan_virtuals(
        &self,
        of: &Function,
        mut plan: Plan,
        count: Option<u16>,
        regard: Regard,
    ) -> Result<Plan, SysfsError> {
        let address = of.address;
        let Fact::Is(sriov) = &of.sriov else {
            let physical = of.physical.known().copied();
            return Err(SysfsError::NoVirtualFunctions { address, physical });
        };
        let known = |what, fact: &Fact<u16>| match fact {
            Fact::Is(number) => Ok(*number),
            Fact::Absent => Err(SysfsError::NoVirtualFunctions {
                address,
                physical: None,
            }),
            Fact::Unknown(why) => Err(SysfsError::Unreadable {
                address,
                what,
                why: why.clone(),
            }),
        };
        let total = known("sriov_totalvfs", &sriov.total)?;
        let now = VirtualState {
            made: known("sriov_numvfs", &sriov.made)?,
            autoprobe: self.host.autoprobe(address).known().copied(),
        };
        let want = match (count, plan.record.virtuals) {
            (None, Some(was)) => was,
            (Some(0), was) => VirtualState {
                made: 0,
                autoprobe: was.map_or(now.autoprobe, |was| was.autoprobe),
            },
            (count, _) => VirtualState {
                made: count.unwrap_or(now.made),
                autoprobe: now.autoprobe.map(|_| 0),
            },
        };
        if want.made > total {
            return Err(SysfsError::TooManyVirtualFunctions {
                address,
                count: want.made,
                total,
            });
        }
        // The driver that it has then.
        let driverless = match &plan.goal.driver {
            Some(Driver::Exactly(driver)) => driver.is_none(),
            Some(Driver::NotVfio) | None => of.driver == Fact::Absent,
        };
        if driverless && want.made != now.made {
            return Err(SysfsError::NoPhysicalDriver { address });
        }
        plan.before.virtuals = Some(now);
        plan.goal.virtuals = Some(want.made);
        if now.made != want.made && now.made != 0 {
            for made in &sriov.functions {
                self.spared(&self.host.function(*made)?, regard)?;
            }
        }
        let leaves = |step: &Step| step.path.ends_with("/unbind");
        if now.made != want.made || count.is_none() {
            let steps = match plan.steps.iter().any(leaves) {
                // They go with the driver, as a rule.
                true => {
                    let none = VirtualState { made: 0, ..now };
                    let mut steps = to_virtuals(address, now, none);
                    steps.extend(to_virtuals(address, none, want));
                    steps
                }
                false => to_virtuals(address, now, want),
            };
            plan.steps.extend(steps);
            let was = *plan.record.virtuals.get_or_insert(now);
            plan.settled.virtuals = (was != want).then_some(was);
        }
        Ok(plan)
    }

    /// The virtual functions that it has, if that is known.
    fn made(&self, of: &Function) -> Option<VirtualState> {
        Some(VirtualState {
            made: *of.sriov.known()?.made.known()?,
            autoprobe: self.host.autoprobe(of.address).known().copied(),
        })
    }

    fn has_driver(&self, address: Address, driver: &str) -> Result<(), SysfsError> {
        match self.host.has(&format!("{DRIVERS}/{driver}")) {
            true => Ok(()),
            false => Err(SysfsError::NoDriver {
                address,
                driver: driver.to_owned(),
            }),
        }
    }

    fn spared(&self, function: &Function, regard: Regard) -> Result<(), SysfsError> {
        let usage: Vec<Usage> = self.host.usage(function);
        match regard {
            Regard::Spare if !usage.is_empty() => Err(SysfsError::InUse {
                address: function.address,
                usage,
            }),
            Regard::Spare | Regard::Force => Ok(()),
        }
    }
}
