//! The functions that are counted in: callgrind knows them by their names.

use std::hint::black_box;

macro_rules! counted {
    ($($step:ident)*) => {
        /// Their names.
        pub(crate) const STEPS: &[&str] = &[$(stringify!($step)),*];
        $(
            #[inline(never)]
            pub(crate) fn $step<R>(work: impl FnOnce() -> R) -> R {
                // Its own name keeps the compiler from making one function of several; the result, from a jump.
                black_box(stringify!($step));
                black_box(work())
            }
        )*
    };
}

counted! { record receive transmit acknowledge timeout deliver open seal forward }

/// Callgrind writes what it counted so far, and begins anew, whenever this returns.
#[inline(never)]
pub(crate) fn mark() {
    black_box(());
}
