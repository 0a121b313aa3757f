//! What each message looks like: the columns of the tables in `request`.

/// How a payload is laid out, and so how long it can be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum PayloadForm {
    /// No payload.
    Nothing,
    /// One number of 8 bytes.
    U64,
    /// A [`VringState`](crate::payload::VringState).
    VringState,
    /// A [`VringAddr`](crate::payload::VringAddr).
    VringAddr,
    /// A table of [`MemoryRegion`](crate::payload::MemoryRegion)s.
    Memory,
    /// One [`MemoryRegion`](crate::payload::MemoryRegion).
    Region,
    /// A [`Log`](crate::payload::Log), or one number of 8 bytes.
    Log,
    /// An [`Iotlb`](crate::payload::Iotlb).
    Iotlb,
    /// A [`Config`](crate::payload::Config).
    Config,
    /// A [`VringArea`](crate::payload::VringArea).
    Area,
    /// An [`Inflight`](crate::payload::Inflight).
    Inflight,
    /// A [`DeviceState`](crate::payload::DeviceState).
    DeviceState,
    /// A UUID of 16 bytes.
    Uuid,
    /// What this crate does not take apart.
    Opaque,
}

impl PayloadForm {
    /// Whether a payload can have so many bytes.
    pub fn takes(self, len: usize) -> bool {
        match self {
            Self::Nothing => len == 0,
            Self::U64 | Self::VringState | Self::DeviceState => len == 8,
            Self::VringAddr | Self::Region => len == 40,
            Self::Memory => len
                .checked_sub(8)
                .is_some_and(|regions| regions % 32 == 0 && regions <= 8 * 32),
            Self::Log => len == 8 || len == 16,
            Self::Iotlb => len == 26 || len == 32,
            Self::Config => (12..=12 + 256).contains(&len),
            Self::Area => len == 24,
            Self::Inflight => len == 20 || len == 24,
            Self::Uuid => len == 16,
            Self::Opaque => len <= crate::MAX_PAYLOAD,
        }
    }

    /// The same in words, for who reads an error.
    pub fn lengths(self) -> &'static str {
        match self {
            Self::Nothing => "none",
            Self::U64 | Self::VringState | Self::DeviceState => "8",
            Self::VringAddr | Self::Region => "40",
            Self::Memory => "8, and 32 for each of up to 8 regions",
            Self::Log => "8 or 16",
            Self::Iotlb => "26 or 32",
            Self::Config => "12 to 268",
            Self::Area => "24",
            Self::Inflight => "20 or 24",
            Self::Uuid => "16",
            Self::Opaque => "up to 4096",
        }
    }
}

/// A row of a table of requests.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Form {
    /// As the specification calls it.
    pub name: &'static str,
    /// Its number.
    pub number: u32,
    /// What it carries.
    pub payload: PayloadForm,
    /// How many descriptors it brings at least. A memory table brings as many as it has regions.
    pub least_fds: usize,
    /// How many it may bring.
    pub most_fds: usize,
    /// What the reply carries, where there always is one. All others are acknowledged with a number where that is
    /// negotiated and asked for.
    pub reply: Option<PayloadForm>,
    /// How many descriptors the reply may bring.
    pub reply_fds: usize,
}

/// Requests of one side: the type, its numbers and its forms, each line once.
///
/// `NAME = NUMBER "NAME IN THE SPECIFICATION": payload, fds LEAST to MOST [, reply PAYLOAD [with N]];`
macro_rules! requests {
    (
        $(#[$m:meta])*
        $type:ident of a $side:literal {
            $(
                $(#[$vm:meta])*
                $variant:ident = $number:literal $name:literal: $payload:ident, fds $least:literal to $most:literal
                $(, reply $reply:ident $(with $fds:literal)?)?;
            )*
        }
    ) => {
        $(#[$m])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        #[non_exhaustive]
        #[repr(u32)]
        pub enum $type {
            $(
                #[doc = concat!("`", $name, "`:")]
                $(#[$vm])*
                $variant = $number,
            )*
        }

        impl $type {
            /// All there are, by their numbers.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// Whose they are, in words.
            pub(crate) const SIDE: &'static str = $side;

            /// The one with that number, or `None` if there is none.
            pub fn from_number(number: u32) -> Option<Self> {
                match number {
                    $($number => Some(Self::$variant),)*
                    _ => None,
                }
            }

            /// What it looks like.
            pub fn form(self) -> $crate::Form {
                match self {
                    $(Self::$variant => $crate::Form {
                        name: $name,
                        number: $number,
                        payload: $crate::PayloadForm::$payload,
                        least_fds: $least,
                        most_fds: $most,
                        reply: requests!(@reply $($reply)?),
                        reply_fds: requests!(@fds $($($fds)?)?),
                    },)*
                }
            }

            /// As the specification calls it.
            pub fn name(self) -> &'static str {
                self.form().name
            }
        }
    };
    (@reply) => { None };
    (@reply $reply:ident) => { Some($crate::PayloadForm::$reply) };
    (@fds) => { 0 };
    (@fds $fds:literal) => { $fds };
}
pub(crate) use requests;
