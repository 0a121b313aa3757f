//! A copy of a system's files that changes as the kernel would change them.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::symlink;

use nix::errno::Errno;

use super::copied::Copied;
use super::function::DEVICES;
use super::group::GROUPS;
use super::tree::{ATTRIBUTE, Tree};
use super::{Address, Fact, Function, Kernel, Step, SysfsError};

/// The drivers of the bus, by name.
pub(super) const DRIVERS: &str = "/sys/bus/pci/drivers";

/// Which driver a function had before it was taken from it; a kernel knows by the driver's own table.
const NATIVE: &str = "rehearsed_driver";

/// Where the virtual functions have their addresses: right behind the physical one, one by one.
const STRIDE: u16 = 1;

/// Does to a copy of a system's files what the kernel would: drivers take functions and let them go, groups get a device
/// file when VFIO has a member, virtual functions come and go.
///
/// A function that nobody was seen to have stays free when the bus is searched for a driver.
pub struct Rehearsal {
    tree: Tree,
    copy: Copied,
}

impl Rehearsal {
    /// # Errors
    /// When the tree is no copy: what is written would be done.
    pub(super) fn new(tree: Tree) -> Result<Self, SysfsError> {
        let copy = Copied::new(tree.clone(), &["/sys/bus/pci", DEVICES, DRIVERS])?;
        Ok(Self { tree, copy })
    }

    fn function(&self, text: &str) -> io::Result<Function> {
        let address: Address = text.parse().map_err(|_| Errno::ENODEV)?;
        match self.tree.path(format!("{DEVICES}/{address}")).is_dir() {
            true => Ok(Function::read(&self.tree, address)),
            false => Err(Errno::ENODEV.into()),
        }
    }

    fn unbind(&self, driver: &str, address: &str) -> io::Result<()> {
        let function = self.function(address)?;
        if function.driver.known().map(String::as_str) != Some(driver) {
            return Err(Errno::ENODEV.into());
        }
        if !function.is_vfio() {
            self.copy
                .put(&format!("{DEVICES}/{address}/{NATIVE}"), driver)?;
        }
        self.take_virtual_functions(&function)?;
        fs::remove_file(self.copy.inside(&format!("{DEVICES}/{address}/driver"))?)?;
        // VFIO's device goes with VFIO.
        if let Fact::Is(device) = &function.vfio_device {
            fs::remove_dir_all(
                self.copy
                    .inside(&format!("{DEVICES}/{address}/vfio-dev/{device}"))?,
            )?;
            fs::remove_dir(self.copy.inside(&format!("{DEVICES}/{address}/vfio-dev"))?)?;
        }
        self.group_file(&function)
    }

    fn probe(&self, address: &str) -> io::Result<()> {
        let function = self.function(address)?;
        if function.driver != Fact::Absent {
            return Ok(());
        }
        let native = self
            .tree
            .text(format!("{DEVICES}/{address}/{NATIVE}"), ATTRIBUTE);
        let driver = match &function.driver_override {
            Fact::Is(only) => only,
            _ => match &native {
                Fact::Is(native) => native,
                _ => return Ok(()),
            },
        };
        if !self.tree.path(format!("{DRIVERS}/{driver}")).is_dir() {
            return Ok(());
        }
        let link = self.copy.inside(&format!("{DEVICES}/{address}/driver"))?;
        symlink(format!("../../drivers/{driver}"), link)?;
        self.group_file(&function)
    }

    /// VFIO's file of the group is there while it has a member.
    fn group_file(&self, function: &Function) -> io::Result<()> {
        let Some(group) = function.iommu_group.known() else {
            return Ok(());
        };
        let members = self.tree.names(format!("{GROUPS}/{group}/devices"));
        let vfio = members.known().into_iter().flatten().any(|name| {
            let member = self.function(name);
            member.is_ok_and(|member| member.is_vfio())
        });
        self.copy.directory("/dev/vfio")?;
        let file = self.copy.inside(&format!("/dev/vfio/{group}"))?;
        // A link there may lead out of the copy, to what is not there yet: it is something, and is not followed.
        match (vfio, fs::symlink_metadata(&file).is_ok()) {
            (true, false) => File::create_new(file).map(drop),
            (false, true) => fs::remove_file(file),
            _ => Ok(()),
        }
    }

    /// They go with their physical function's driver, and when another number of them is wanted.
    fn take_virtual_functions(&self, function: &Function) -> io::Result<()> {
        let Some(sriov) = function.sriov.known() else {
            return Ok(());
        };
        if sriov.functions.is_empty() {
            return Ok(());
        }
        for (number, address) in sriov.functions.iter().enumerate() {
            let gone = Function::read(&self.tree, *address);
            fs::remove_dir_all(self.copy.inside(&format!("{DEVICES}/{address}"))?)?;
            fs::remove_file(
                self.copy
                    .inside(&format!("{DEVICES}/{}/virtfn{number}", function.address))?,
            )?;
            if let Some(group) = gone.iommu_group.known() {
                fs::remove_dir_all(self.copy.inside(&format!("{GROUPS}/{group}"))?)?;
                // It is there only if VFIO had it.
                let file = self.copy.inside(&format!("/dev/vfio/{group}"));
                let _ = file.and_then(fs::remove_file);
            }
        }
        let path = format!("{DEVICES}/{}/sriov_numvfs", function.address);
        self.copy.put(&path, "0\n")
    }

    fn set_virtual_functions(&self, at: &str, text: &str) -> io::Result<()> {
        let function = self.function(at)?;
        let count: u16 = text.parse().map_err(|_| Errno::EINVAL)?;
        let sriov = function.sriov.known().ok_or(Errno::ENOENT)?;
        let total = *sriov.total.known().ok_or(Errno::EINVAL)?;
        let made = *sriov.made.known().ok_or(Errno::EINVAL)?;
        if function.driver == Fact::Absent {
            return Err(Errno::ENOENT.into());
        }
        if count > total {
            return Err(Errno::ERANGE.into());
        }
        if made != 0 && count != 0 {
            return Err(Errno::EBUSY.into());
        }
        self.take_virtual_functions(&function)?;
        for number in 0..count {
            self.make(&function, number)?;
        }
        self.copy.put(
            &format!("{DEVICES}/{at}/sriov_numvfs"),
            &format!("{count}\n"),
        )
    }

    fn make(&self, physical: &Function, number: u16) -> io::Result<()> {
        let by = number.saturating_add(1).saturating_mul(STRIDE);
        let address = physical.address.further(by).ok_or(Errno::ENOMEM)?;
        let home = format!("{DEVICES}/{address}");
        fs::create_dir(self.copy.inside(&home)?)?;
        let of = |name: &str| {
            self.tree
                .text(format!("{DEVICES}/{}/{name}", physical.address), ATTRIBUTE)
        };
        for name in ["vendor", "subsystem_vendor", "subsystem_device", "class"] {
            if let Fact::Is(text) = of(name) {
                self.copy.put(&format!("{home}/{name}"), &text)?;
            }
        }
        if let Fact::Is(device) = of("sriov_vf_device") {
            self.copy
                .put(&format!("{home}/device"), &format!("0x{device}"))?;
        }
        self.copy
            .put(&format!("{home}/driver_override"), "(null)\n")?;
        symlink(
            format!("../{}", physical.address),
            self.copy.inside(&format!("{home}/physfn"))?,
        )?;
        let virtfn = format!("{DEVICES}/{}/virtfn{number}", physical.address);
        symlink(format!("../{address}"), self.copy.inside(&virtfn)?)?;
        let groups = self.tree.names(GROUPS).known().cloned().unwrap_or_default();
        let numbers = groups.iter().filter_map(|name| name.parse::<u32>().ok());
        let group = numbers.max().map_or(0, |last| last.saturating_add(1));
        let members = format!("{GROUPS}/{group}/devices");
        self.copy.directory(&members)?;
        symlink(
            format!("../../../../bus/pci/devices/{address}"),
            self.copy.inside(&format!("{members}/{address}"))?,
        )?;
        symlink(
            format!("../../../../kernel/iommu_groups/{group}"),
            self.copy.inside(&format!("{home}/iommu_group"))?,
        )
    }
}

impl Kernel for Rehearsal {
    fn write(&self, step: &Step) -> io::Result<()> {
        let mut parts = step.path.rsplit('/');
        let (file, of) = (parts.next().unwrap_or(""), parts.next().unwrap_or(""));
        // As the kernel has it, only what is there can be written.
        if !self.copy.inside(&step.path)?.exists() {
            return Err(Errno::ENOENT.into());
        }
        match file {
            "unbind" => self.unbind(of, &step.text),
            "drivers_probe" => self.probe(&step.text),
            "sriov_numvfs" => self.set_virtual_functions(of, &step.text),
            "driver_override" if step.text.is_empty() => self.copy.put(&step.path, "(null)\n"),
            "driver_override" | "sriov_drivers_autoprobe" => {
                self.copy.put(&step.path, &format!("{}\n", step.text))
            }
            _ => Err(Errno::EACCES.into()),
        }
    }
}
