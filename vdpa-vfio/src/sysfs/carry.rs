//! A plan carried out: recorded, done step by step, looked at, and taken back if it does not come to its end.

use std::io;

use super::bindings::Driver;
use super::plan::{state, to_state, to_virtuals};
use super::records::VirtualState;
use super::{Address, Bindings, Change, Fact, Function, Plan, Regard, Step, SysfsError, Wish};

/// Why a plan did not come to its end.
enum Trouble {
    Step { step: Step, source: io::Error },
    NotSettled { wanted: String },
}

impl Bindings<'_> {
    /// Does what a wish takes. Doing it again does nothing.
    ///
    /// Before the first step, what the function was like is kept, whole, for [`Wish::Restore`]; after the last one, the
    /// function is looked at again.
    ///
    /// # Errors
    /// As for [`plan`](Self::plan): nothing was done then. Or a step failed: the function is put back, and the error says
    /// where it is. [`is_refusal`](SysfsError::is_refusal) tells which.
    pub fn carry_out(&self, at: Address, wish: Wish, regard: Regard) -> Result<Change, SysfsError> {
        // Before anybody is kept from anything: whoever may not write the records is told what is wrong with the wish, or
        // that all is as wished.
        let plan = self.plan(at, wish, regard)?;
        if plan.steps.is_empty() && self.records.has(&plan.settled)? {
            let now = self.host.look(at);
            return Ok(Change {
                before: now.clone(),
                after: now,
                steps: plan.steps,
            });
        }
        let _locked = self.records.lock()?;
        let plan = self.plan(at, wish, regard)?;
        let before = self.host.look(at);
        if !plan.steps.is_empty() {
            self.records.keep(&plan.record)?;
            if let Err(error) = self.take(&plan) {
                return Err(self.put_back(&plan, error));
            }
        }
        if plan.settled != plan.record || plan.steps.is_empty() {
            self.records
                .keep(&plan.settled)
                .map_err(|error| match error {
                    SysfsError::Records { path, source } if !plan.steps.is_empty() => {
                        let address = at;
                        SysfsError::Leftover {
                            address,
                            path,
                            source,
                        }
                    }
                    error => error,
                })?;
        }
        Ok(Change {
            before,
            after: self.host.look(at),
            steps: plan.steps,
        })
    }

    fn take(&self, plan: &Plan) -> Result<(), Trouble> {
        for step in &plan.steps {
            self.kernel.write(step).map_err(|source| Trouble::Step {
                step: step.clone(),
                source,
            })?;
        }
        let now = self.host.look(plan.address);
        let settled = match &plan.goal.driver {
            Some(Driver::Exactly(driver)) => {
                now.driver == driver.clone().map_or(Fact::Absent, Fact::Is)
            }
            Some(Driver::NotVfio) => !now.is_vfio(),
            None => true,
        };
        if !settled {
            let wanted = match &plan.goal.driver {
                Some(Driver::Exactly(Some(driver))) => format!("driver {driver}"),
                Some(Driver::Exactly(None)) => "no driver".to_owned(),
                Some(Driver::NotVfio) | None => "another driver than VFIO's".to_owned(),
            };
            return Err(Trouble::NotSettled { wanted });
        }
        match plan.goal.virtuals {
            Some(count) if self.virtuals(&now).made != count => Err(Trouble::NotSettled {
                wanted: format!("{count} virtual functions"),
            }),
            _ => Ok(()),
        }
    }

    /// Back to what it was before the first step, as far as the kernel lets.
    fn put_back(&self, plan: &Plan, trouble: Trouble) -> SysfsError {
        let address = plan.address;
        let steps = |function: &Function| {
            let mut steps = match state(function) {
                Ok(now) => to_state(address, &now, &plan.before.state),
                Err(_) => Vec::new(),
            };
            if let Some(was) = plan.before.virtuals {
                steps.extend(to_virtuals(address, self.virtuals(function), was));
            }
            steps
        };
        for step in steps(&self.host.look(address)) {
            // What comes of it is looked at below; one that fails does not make the next one useless.
            let _ = self.kernel.write(&step);
        }
        let now = self.host.look(address);
        let back = steps(&now).is_empty() && state(&now).is_ok();
        let mut place = match &now.driver {
            Fact::Is(driver) => format!("it is with {driver}"),
            Fact::Absent => "no driver has it".to_owned(),
            Fact::Unknown(why) => format!("its driver cannot be seen: {why}"),
        };
        if plan.before.virtuals.is_some() {
            place += &format!(", with {} virtual functions", self.virtuals(&now).made);
        }
        let now = match back {
            true => {
                // What was recorded before this stays so. What cannot be taken away does no harm: restoring does nothing.
                let mut record = plan.record.clone();
                record.state = record.state.filter(|state| *state != plan.before.state);
                record.virtuals = record
                    .virtuals
                    .filter(|was| Some(*was) != plan.before.virtuals);
                let _ = self.records.keep(&record);
                format!("{place}, as before")
            }
            false => format!("{place}: `vdpactl vfio restore` puts it back"),
        };
        match trouble {
            Trouble::Step { step, source } => SysfsError::Step {
                address,
                step,
                now,
                source,
            },
            Trouble::NotSettled { wanted } => SysfsError::NotSettled {
                address,
                wanted,
                now,
            },
        }
    }

    fn virtuals(&self, function: &Function) -> VirtualState {
        let sriov = function.sriov.known();
        let made = sriov.and_then(|sriov| sriov.made.known().copied());
        VirtualState {
            made: made.unwrap_or(0),
            autoprobe: self.host.autoprobe(function.address).known().copied(),
        }
    }
}
