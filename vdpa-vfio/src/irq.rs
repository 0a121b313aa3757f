//! Interrupts: MSI-X vectors one by one, the interrupt line, and what the kernel itself has to say of a function.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use vdpa_core::Call;
use vfio_bindings::bindings::vfio;

use crate::{VfioError, ioctl};

const MSIX: u32 = vfio::VFIO_PCI_MSIX_IRQ_INDEX;
const LINE: u32 = vfio::VFIO_PCI_INTX_IRQ_INDEX;

/// The interrupts of a function.
pub(crate) struct Irqs {
    name: String,
    /// How many vectors there are, at most.
    vectors: u16,
    /// Whether there is a line.
    line: bool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// What each enabled vector calls.
    vectors: Vec<Option<Arc<OwnedFd>>>,
    line: Option<Arc<OwnedFd>>,
}

impl Irqs {
    /// Asks what a function has.
    pub(crate) fn new(name: &str, device: &File) -> io::Result<Self> {
        let count = |index| {
            let (flags, count) = match ioctl::irq_info(device, index) {
                Ok(answer) => answer,
                // A mediated device's driver may know no more kinds than it has.
                Err(error) if error.raw_os_error() == Some(libc::EINVAL) => (0, 0),
                Err(error) => return Err(error),
            };
            let usable = flags & vfio::VFIO_IRQ_INFO_EVENTFD != 0;
            Ok::<_, io::Error>(if usable { count } else { 0 })
        };
        Ok(Self {
            name: name.to_owned(),
            vectors: u16::try_from(count(MSIX)?).unwrap_or(u16::MAX),
            line: count(LINE)? != 0,
            state: Mutex::default(),
        })
    }

    /// Those of a function that has none.
    #[cfg(test)]
    pub(crate) fn none(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            vectors: 0,
            line: false,
            state: Mutex::default(),
        }
    }

    pub(crate) fn vectors(&self) -> u16 {
        self.vectors
    }

    pub(crate) fn has_line(&self) -> bool {
        self.line
    }

    /// Switches MSI-X on with `count` vectors in one call, none of which writes anything, or off.
    ///
    /// All of them are had at once: where the kernel cannot add vectors later (`VFIO_IRQ_INFO_NORESIZE`), nor can it take
    /// fewer.
    pub(crate) fn enable(&self, device: &File, count: u16) -> Result<(), VfioError> {
        let short = |available| VfioError::Vectors {
            name: self.name.clone(),
            wanted: count,
            available,
        };
        if count > self.vectors {
            return Err(short(self.vectors));
        }
        let mut state = self.lock();
        if state.line.is_some() && count != 0 {
            off(device, LINE).map_err(self.failed("switch the interrupt line off"))?;
            state.line = None;
        }
        if !state.vectors.is_empty() {
            // A set that is on keeps its size.
            off(device, MSIX).map_err(self.failed("switch MSI-X off"))?;
            state.vectors.clear();
        }
        if count == 0 {
            return Ok(());
        }
        let none = vec![None; usize::from(count)];
        let answer = ioctl::trigger(device, MSIX, 0, &none);
        match answer.map_err(self.failed("switch MSI-X on"))? {
            0 => state.vectors = vec![None; usize::from(count)],
            available => return Err(short(u16::try_from(available).unwrap_or(u16::MAX))),
        }
        Ok(())
    }

    /// Has an enabled vector write an eventfd, or nothing.
    pub(crate) fn set(&self, device: &File, vector: u16, call: &Call) -> Result<(), VfioError> {
        let event = self.event(call)?;
        let mut state = self.lock();
        let enabled = u16::try_from(state.vectors.len()).unwrap_or(u16::MAX);
        let Some(old) = state.vectors.get_mut(usize::from(vector)) else {
            return Err(VfioError::Vector {
                name: self.name.clone(),
                vector,
                enabled,
            });
        };
        let point = |to: &Option<Arc<OwnedFd>>| {
            let to = [to.as_ref().map(|fd| fd.as_fd())];
            ioctl::trigger(device, MSIX, u32::from(vector), &to).map(drop)
        };
        if let Err(error) = point(&event) {
            // The kernel has let go of the old one by now.
            if let Err(error) = point(old) {
                tracing::error!(function = self.name, vector, %error, "a vector is lost");
                *old = None;
            }
            return Err(self.failed("set a vector")(error));
        }
        *old = event;
        Ok(())
    }

    /// Has the line write an eventfd and mask itself, or switches it off.
    pub(crate) fn set_line(&self, device: &File, call: &Call) -> Result<(), VfioError> {
        let event = self.event(call)?;
        let mut state = self.lock();
        let Some(event) = event else {
            if state.line.is_some() {
                off(device, LINE).map_err(self.failed("switch the interrupt line off"))?;
                state.line = None;
            }
            return Ok(());
        };
        if !self.line {
            return Err(self.no_line());
        }
        if !state.vectors.is_empty() {
            return Err(VfioError::MsixOn {
                name: self.name.clone(),
            });
        }
        ioctl::trigger(device, LINE, 0, &[Some(event.as_fd())])
            .map_err(self.failed("use the interrupt line"))?;
        state.line = Some(event);
        Ok(())
    }

    /// Lets the line write again.
    pub(crate) fn unmask_line(&self, device: &File) -> Result<(), VfioError> {
        let state = self.lock();
        if state.line.is_none() {
            return Err(self.no_line());
        }
        ioctl::set_irqs(device, LINE, vfio::VFIO_IRQ_SET_ACTION_UNMASK, 1)
            .map(drop)
            .map_err(self.failed("unmask the interrupt line"))
    }

    /// Switches everything off that was switched on.
    pub(crate) fn close(&self, device: &File) {
        let mut state = self.lock();
        let State { vectors, line } = std::mem::take(&mut *state);
        let off = |index, on| {
            if on && let Err(error) = off(device, index) {
                tracing::debug!(function = self.name, index, %error, "cannot be switched off");
            }
        };
        off(MSIX, !vectors.is_empty());
        off(LINE, line.is_some());
    }

    fn event(&self, call: &Call) -> Result<Option<Arc<OwnedFd>>, VfioError> {
        match call {
            Call::None => Ok(None),
            Call::EventFd(event) => Ok(Some(Arc::clone(event))),
            Call::Fn(_) => Err(VfioError::Closure {
                name: self.name.clone(),
            }),
        }
    }

    fn no_line(&self) -> VfioError {
        VfioError::NoLine {
            name: self.name.clone(),
        }
    }

    fn failed(&self, what: &'static str) -> impl Fn(io::Error) -> VfioError {
        let name = self.name.clone();
        move |source| VfioError::System {
            name: name.clone(),
            what,
            source,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Switches all interrupts of an index off.
fn off(device: &File, index: u32) -> io::Result<()> {
    ioctl::set_irqs(device, index, vfio::VFIO_IRQ_SET_ACTION_TRIGGER, 0).map(drop)
}

/// What the kernel itself writes an eventfd for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Notice {
    /// It wants the function back, and waits.
    Request,
    /// The bus reported an error that was not corrected.
    Error,
}

impl Notice {
    pub(crate) const ALL: [Self; 2] = [Self::Request, Self::Error];

    /// Whether a function has it, and then has it write `event`, or nothing.
    pub(crate) fn point(self, device: &File, event: Option<BorrowedFd<'_>>) -> io::Result<bool> {
        let index = self.index();
        // Older kernels, and other buses, do not know it.
        match ioctl::irq_info(device, index) {
            Ok((flags, count)) if count != 0 && flags & vfio::VFIO_IRQ_INFO_EVENTFD != 0 => {}
            _ => return Ok(false),
        }
        ioctl::trigger(device, index, 0, &[event]).map(|_| true)
    }

    /// Has the kernel write nothing for it any more. Where it did not, it says so, which is no matter.
    pub(crate) fn forget(self, device: &File) {
        let _none = ioctl::trigger(device, self.index(), 0, &[None]);
    }

    const fn index(self) -> u32 {
        match self {
            Self::Request => vfio::VFIO_PCI_REQ_IRQ_INDEX,
            Self::Error => vfio::VFIO_PCI_ERR_IRQ_INDEX,
        }
    }
}

/// Has every notice write its event, or, where one of them cannot, leaves all as they were.
///
/// * `new`: what each is to write
/// * `old`: what it writes so far
/// * `point`: has it write that, or nothing, and says whether the function has it
///
/// Answers which there are.
pub(crate) fn point_all<'a>(
    new: impl IntoIterator<Item = (Notice, BorrowedFd<'a>)>,
    old: impl Fn(Notice) -> Option<BorrowedFd<'a>>,
    point: impl Fn(Notice, Option<BorrowedFd<'a>>) -> io::Result<bool>,
) -> io::Result<Vec<Notice>> {
    let mut pointed = Vec::new();
    for (notice, event) in new {
        match point(notice, Some(event)) {
            Ok(true) => pointed.push(notice),
            Ok(false) => {}
            Err(error) => {
                for notice in pointed {
                    if let Err(error) = point(notice, old(notice)) {
                        tracing::error!(?notice, %error, "an event is left that nobody reads");
                    }
                }
                return Err(error);
            }
        }
    }
    Ok(pointed)
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::collections::HashMap;
    use std::os::fd::AsRawFd;

    use super::*;

    #[test]
    fn a_watch_that_half_failed_leaves_no_event_that_nobody_reads() {
        let files = [(); 4].map(|()| tempfile::tempfile().unwrap());
        let [old, new] = [[&files[0], &files[1]], [&files[2], &files[3]]];
        let number = |notice| usize::from(notice == Notice::Error);
        for before in [false, true] {
            let old = |notice: Notice| before.then(|| old[number(notice)].as_fd());
            let raw = |notice| old(notice).map(|fd| fd.as_raw_fd());
            // What the kernel would write.
            let kernel = RefCell::new(HashMap::from(Notice::ALL.map(|of| (of.index(), raw(of)))));
            let point = |fails: Option<Notice>| {
                let kernel = &kernel;
                let new = Notice::ALL.map(|of| (of, new[number(of)].as_fd()));
                point_all(new, old, move |notice, event| {
                    if fails == Some(notice) {
                        return Err(io::Error::from_raw_os_error(libc::EIO));
                    }
                    let event = event.map(|fd| fd.as_raw_fd());
                    kernel.borrow_mut().insert(notice.index(), event);
                    Ok(true)
                })
            };
            for fails in Notice::ALL {
                point(Some(fails)).unwrap_err();
                for of in Notice::ALL {
                    assert_eq!(kernel.borrow()[&of.index()], raw(of), "{fails:?} fails");
                }
            }
            assert_eq!(point(None).unwrap(), Notice::ALL);
            for of in Notice::ALL {
                let writes = kernel.borrow()[&of.index()];
                assert_eq!(writes, Some(new[number(of)].as_raw_fd()));
            }
        }
    }
}
