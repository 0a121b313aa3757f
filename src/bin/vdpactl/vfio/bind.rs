//! `vdpactl vfio bind`, `unbind`, `restore` and `vf create`: who has a function, changed.

use std::path::Path;

use serde::Serialize;
use vdpa::core::{ErrorKind, ParentError};
use vdpa::vfio::sysfs::{
    Address, Bindings, Change, Fact, Function, Host, Kernel, Step, SysfsError, Wish,
};

use crate::failure::{Failure, Verdict};
use crate::output::Output;
use crate::vfio::command::How;
use crate::vfio::{Write, failed, known, writes};

/// Changes functions.
pub(super) struct Binder<'a> {
    host: &'a Host,
    kernel: Box<dyn Kernel>,
    records: &'a Path,
}

#[derive(Serialize)]
struct Report {
    function: String,
    /// False: it was only asked what would be written.
    done: bool,
    steps: Vec<Write>,
    driver: Driver,
    #[serde(skip_serializing_if = "Option::is_none")]
    vfs: Option<Vec<String>>,
    group: Option<u32>,
    /// Functions on account of which VFIO does not give the group away.
    in_the_way: Vec<String>,
}

#[derive(Serialize)]
struct Driver {
    before: Option<String>,
    after: Option<String>,
}

#[derive(Serialize)]
struct Restored {
    restored: Vec<Report>,
    failed: Vec<Refused>,
}

#[derive(Serialize)]
struct Refused {
    function: String,
    error: String,
}

impl<'a> Binder<'a> {
    pub(super) fn new(host: &'a Host, records: &'a Path) -> Result<Self, Failure> {
        Ok(Self {
            host,
            kernel: host.kernel().map_err(failed)?,
            records,
        })
    }

    fn bindings(&self) -> Bindings<'_> {
        Bindings::new(self.host, &*self.kernel, self.records)
    }

    /// `bind BDF`.
    pub(super) fn bind(
        &self,
        at: Address,
        how: How,
        output: &mut Output,
    ) -> Result<Verdict, Failure> {
        let report = self.one(at, Wish::Bind, how, output)?;
        if !report.in_the_way.is_empty() && report.done {
            let others = report.in_the_way.join(", ");
            output.say(&format!(
                "{} its group is not viable: {others} {} it with another driver (vdpactl vfio doctor {at})",
                output.paint().bad("but"),
                if report.in_the_way.len() == 1 { "is in" } else { "are in" },
            ))?;
        }
        output.object(&report)?;
        Ok(Verdict::Well)
    }

    /// `unbind BDF`.
    pub(super) fn unbind(
        &self,
        at: Address,
        how: How,
        output: &mut Output,
    ) -> Result<Verdict, Failure> {
        let report = self.one(at, Wish::Unbind, how, output)?;
        output.object(&report)?;
        Ok(Verdict::Well)
    }

    /// `vf create PF N`.
    pub(super) fn virtual_functions(
        &self,
        at: Address,
        count: u16,
        how: How,
        output: &mut Output,
    ) -> Result<Verdict, Failure> {
        let report = self.one(at, Wish::VirtualFunctions(count), how, output)?;
        output.object(&report)?;
        Ok(Verdict::Well)
    }

    /// `restore`: each function by itself, whatever becomes of the others.
    pub(super) fn restore(
        &self,
        functions: Vec<Address>,
        how: How,
        output: &mut Output,
    ) -> Result<Verdict, Failure> {
        let functions = match functions[..] {
            [] => self.bindings().changed().map_err(failed)?,
            // There is no other for which it would go on.
            [one] => match self.plan(one, Wish::Restore, how) {
                Err(error) if error.kind() == ErrorKind::Misuse => return Err(failed(error)),
                _ => functions,
            },
            _ => functions,
        };
        if functions.is_empty() {
            output.say("nothing was changed, so there is nothing to restore")?;
        }
        let mut report = Restored {
            restored: Vec::new(),
            failed: Vec::new(),
        };
        // Functions whose virtual ones go, where that is only said.
        let mut without: Vec<Address> = Vec::new();
        for at in functions {
            match self.change(at, Wish::Restore, how) {
                Ok(mut change) => {
                    let physical = known(&change.after.physical);
                    match physical.filter(|physical| without.contains(physical)) {
                        Some(physical) => {
                            change.steps.clear();
                            output.say(&format!("{at} goes with those of {physical}"))?;
                        }
                        None => tell(&change, Wish::Restore, how, output)?,
                    }
                    if how.dry_run && change.steps.iter().any(takes_away) {
                        without.push(at);
                    }
                    let one = self.report(&change, Wish::Restore, how);
                    report.restored.push(one);
                }
                Err(error) => {
                    // With what the system said.
                    let error = failed(error).to_string();
                    output.complain(&error);
                    report.failed.push(Refused {
                        function: at.to_string(),
                        error,
                    });
                }
            }
        }
        output.object(&report)?;
        Ok(Verdict::well_if(report.failed.is_empty()))
    }

    fn one(
        &self,
        at: Address,
        wish: Wish,
        how: How,
        output: &mut Output,
    ) -> Result<Report, Failure> {
        let change = self.change(at, wish, how).map_err(failed)?;
        tell(&change, wish, how, output)?;
        Ok(self.report(&change, wish, how))
    }

    fn change(&self, at: Address, wish: Wish, how: How) -> Result<Change, SysfsError> {
        if !how.dry_run {
            return self.bindings().carry_out(at, wish, how.regard());
        }
        let steps = self.plan(at, wish, how)?;
        let now = self.host.look(at);
        Ok(Change {
            before: now.clone(),
            after: now,
            steps,
        })
    }

    fn plan(&self, at: Address, wish: Wish, how: How) -> Result<Vec<Step>, SysfsError> {
        Ok(self.bindings().plan(at, wish, how.regard())?.steps)
    }

    fn report(&self, change: &Change, wish: Wish, how: How) -> Report {
        let after = &change.after;
        let group = known(&after.iommu_group);
        let in_the_way = |number| {
            let group = self.host.group(number);
            let members = group.in_the_way();
            members.iter().map(|member| member.name.clone()).collect()
        };
        Report {
            function: after.address.to_string(),
            done: !how.dry_run,
            steps: writes(&change.steps),
            driver: Driver {
                before: known(&change.before.driver),
                after: known(&after.driver),
            },
            vfs: match wish {
                Wish::VirtualFunctions(_) => Some(virtuals(after)),
                _ => None,
            },
            group,
            in_the_way: match wish {
                Wish::Bind => group.map(in_the_way).unwrap_or_default(),
                _ => Vec::new(),
            },
        }
    }
}

/// Whether the virtual functions of a function go.
fn takes_away(step: &Step) -> bool {
    step.path.ends_with("/sriov_numvfs") && step.text == "0"
}

fn virtuals(function: &Function) -> Vec<String> {
    let sriov = function.sriov.known().into_iter();
    let functions = sriov.flat_map(|sriov| &sriov.functions);
    functions.map(ToString::to_string).collect()
}

fn tell(change: &Change, wish: Wish, how: How, output: &mut Output) -> Result<(), Failure> {
    let paint = output.paint();
    if how.dry_run {
        for line in change.steps.iter().map(Step::to_string) {
            output.say(&line)?;
        }
    }
    let after = &change.after;
    let at = paint.name(after.address);
    let driver = |driver: &Fact<String>| match driver {
        Fact::Is(driver) => driver.clone(),
        Fact::Absent => "no driver".to_owned(),
        Fact::Unknown(_) => "a driver that cannot be seen".to_owned(),
    };
    let line = match (change.steps.is_empty(), wish) {
        _ if how.dry_run && !change.steps.is_empty() => return Ok(()),
        _ if after.vendor == Fact::Absent => format!("{at} is gone: nothing to restore"),
        (true, Wish::VirtualFunctions(_)) => format!("{at} is as wished"),
        (true, _) => format!("{at} is with {}, as wished", driver(&after.driver)),
        (false, Wish::VirtualFunctions(_)) => match &virtuals(after)[..] {
            [] => format!("{at} has no virtual functions any more"),
            functions => format!("{at} has {}", functions.join(" ")),
        },
        (false, _) if change.before.driver == after.driver => {
            let made = |step: &Step| step.path.ends_with("/sriov_numvfs");
            match change.steps.iter().any(made) {
                true => format!("{at} has {} virtual functions again", virtuals(after).len()),
                false => format!("{at} is with {}, as before", driver(&after.driver)),
            }
        }
        (false, _) => format!(
            "{at} was with {}, is with {}",
            driver(&change.before.driver),
            driver(&after.driver)
        ),
    };
    output.say(&line)?;
    Ok(())
}
