//! The one table that both the constants and their check are made from.
//!
//! `table!` defines what is named in it and lists it in the same breath: a number without a row cannot be written, since
//! nothing else in this crate defines one. Names are the kernel's, so that a row is checked by what it is called:
//! `tests/headers.rs` has a C compiler say what the headers have for it.
//!
//! ```text
//!   table! { HEADER since VERSION  constants · texts · calls · structures }
//!        ├─▶ pub const, pub struct      what users see, documented with header and version
//!        └─▶ Row { "sizeof(struct X)" = 32 } ─▶ all() ─▶ C program ─▶ compared, one by one
//! ```

/// What a name stands for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Value {
    /// A number, a size or an offset in bytes.
    Number(i64),
    /// A string.
    Text(&'static str),
}

/// An expression in C, and what it has to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Row {
    /// The header, as it is included.
    pub header: &'static str,
    /// The first Linux that has it.
    pub since: &'static str,
    /// In C. Names that Rust keeps for itself begin with `r#`, see [`expression`](Self::expression).
    pub raw: &'static str,
    /// What it has to be.
    pub value: Value,
}

impl Row {
    /// In C.
    pub fn expression(&self) -> String {
        self.raw.replace("r#", "")
    }
}

/// Every row there is.
pub fn all() -> impl Iterator<Item = &'static Row> {
    [
        crate::vhost::ROWS,
        crate::vduse::ROWS,
        crate::vdpa::ROWS,
        crate::virtio_pci::ROWS,
        crate::iommufd::ROWS,
    ]
    .into_iter()
    .flatten()
    .copied()
    .flatten()
}

/// What is made of integers alone, and is all zeros to begin with: reserved fields have to be.
pub trait Plain: Copy {
    /// All zeros.
    const ZERO: Self;
}

macro_rules! plain {
    ($($integer:ty)*) => { $(impl Plain for $integer { const ZERO: Self = 0; })* };
}
plain!(u8 u16 u32 u64 i32);

impl<T: Plain, const N: usize> Plain for [T; N] {
    const ZERO: Self = [T::ZERO; N];
}

/// Numbers, texts, ioctls and structures of one header, of which this Linux is the first that has them.
///
/// * `calls(BASE)`: `read`, `write`, `both` for `_IOR`, `_IOW`, `_IOWR` with a number and the argument's type; `plain` for
///   `_IO` with an argument all the same, `none` for `_IO` with none
/// * in a structure, a field that came later says so (`=> "6.10"`), and what follows a `;` is ours: the rest of a union of
///   which one member is named, or an array of any length
macro_rules! table {
    (
        $table:ident: $header:literal since $since:literal;
        $(constants: $ct:ty { $($(#[$cm:meta])* $c:ident = $cv:expr,)* })*
        $(texts { $($(#[$tm:meta])* $t:ident = $tv:literal,)* })?
        $(calls($base:expr) { $($(#[$km:meta])* $call:ident = $way:ident($($arg:tt)*),)* })?
        $(structures { $(
            $(#[$sm:meta])* $s:ident {
                $( $(#[$fm:meta])* $f:ident: $ft:ty $(=> $fs:literal)?, )*
                $(; $rest:ident: $rt:ty)?
            }
        )* })?
    ) => {
        $($(
            $(#[$cm])*
            #[doc = concat!("`", stringify!($c), "` of `", $header, "`, since Linux ", $since, ".")]
            pub const $c: $ct = $cv;
        )*)*
        $($(
            $(#[$tm])*
            #[doc = concat!("`", stringify!($t), "` of `", $header, "`, since Linux ", $since, ".")]
            pub const $t: &str = $tv;
        )*)?
        $($(
            $(#[$km])*
            #[doc = concat!("`", stringify!($call), "` of `", $header, "`, since Linux ", $since, ".")]
            pub const $call: table!(@type $way $($arg)*) =
                $crate::Call::new(stringify!($call), table!(@number $way $base, $($arg)*));
        )*)?
        $($(
            $(#[$sm])*
            #[doc = concat!("`struct ", stringify!($s), "` of `", $header, "`, since Linux ", $since, ".")]
            #[allow(non_camel_case_types, reason = "the kernel's names, by which they are checked")]
            #[derive(Clone, Copy, PartialEq, Eq, Debug)]
            #[repr(C)]
            pub struct $s {
                $(
                    $(#[$fm])*
                    #[doc = concat!("`", stringify!($f), "`", $(", since Linux ", $fs,)? ".")]
                    pub $f: $ft,
                )*
                $(
                    /// The rest of a union, or what follows.
                    pub $rest: $rt,
                )?
            }
            impl $crate::table::Plain for $s {
                const ZERO: Self = Self {
                    $($f: <$ft as $crate::table::Plain>::ZERO,)*
                    $($rest: <$rt as $crate::table::Plain>::ZERO,)?
                };
            }
            impl Default for $s {
                fn default() -> Self {
                    <Self as $crate::table::Plain>::ZERO
                }
            }
        )*)?
        pub(crate) const $table: &[$crate::table::Row] = &[
            $($( table!(@row $header, $since, stringify!($c), Number($c as i64)), )*)*
            $($( table!(@row $header, $since, stringify!($t), Text($t)), )*)?
            $($( table!(@row $header, $since, stringify!($call), Number($call.number() as i64)), )*)?
            $($(
                table!(@row $header, $since, concat!("sizeof(struct ", stringify!($s), ")"),
                    Number(size_of::<$s>() as i64)),
                table!(@row $header, $since, concat!("_Alignof(struct ", stringify!($s), ")"),
                    Number(align_of::<$s>() as i64)),
                $(
                    table!(@row $header, table!(@since $since $($fs)?),
                        concat!("offsetof(struct ", stringify!($s), ", ", stringify!($f), ")"),
                        Number(core::mem::offset_of!($s, $f) as i64)),
                    table!(@row $header, table!(@since $since $($fs)?),
                        concat!("sizeof(((struct ", stringify!($s), " *)0)->", stringify!($f), ")"),
                        Number(size_of::<$ft>() as i64)),
                )*
            )*)?
        ];
    };
    (@row $header:expr, $since:expr, $raw:expr, $kind:ident($value:expr)) => {
        $crate::table::Row {
            header: $header,
            since: $since,
            raw: $raw,
            value: $crate::table::Value::$kind($value),
        }
    };
    (@since $since:literal) => { $since };
    (@since $since:literal $field:literal) => { $field };
    (@type none $nr:expr) => { $crate::Call<()> };
    (@type $way:ident $nr:expr, $arg:ty) => { $crate::Call<$arg> };
    (@number none $base:expr, $nr:expr) => { ::nix::request_code_none!($base, $nr) };
    (@number plain $base:expr, $nr:expr, $arg:ty) => { ::nix::request_code_none!($base, $nr) };
    (@number read $base:expr, $nr:expr, $arg:ty) => { ::nix::request_code_read!($base, $nr, size_of::<$arg>()) };
    (@number write $base:expr, $nr:expr, $arg:ty) => { ::nix::request_code_write!($base, $nr, size_of::<$arg>()) };
    (@number both $base:expr, $nr:expr, $arg:ty) => { ::nix::request_code_readwrite!($base, $nr, size_of::<$arg>()) };
}
pub(crate) use table;
