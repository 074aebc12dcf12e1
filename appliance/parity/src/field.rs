//! The field of 256 elements that Q is computed in: bytes as polynomials over two elements, modulo x⁸ + x⁴ + x³ + x² + 1
//! (0x11d), in which 2 generates every element but zero. It is the field of Linux MD, so that its tools can check ours.
//! Addition is the exclusive or. Single elements only: whole blocks are for [`crate::multiply_into`].

/// The polynomial without its highest term.
const POLYNOMIAL: u8 = 0x1d;

/// How many elements are not zero: powers of 2 repeat after so many.
const ORDER: usize = 255;

/// Powers of 2, twice over, so that the sum of two logarithms is an index.
const POWERS: [u8; 2 * ORDER] = powers();

/// The logarithm to base 2 of every element but zero.
const LOGARITHMS: [u8; 256] = logarithms();

/// Of each coefficient: its products with the sixteen low nibbles, then with the sixteen high ones. A byte's product is the
/// sum of two of them, which is what vector shuffles look up sixteen at a time.
pub(crate) static NIBBLES: [[u8; 32]; 256] = nibbles();

const fn double(element: u8) -> u8 {
    let carry = if element & 0x80 == 0 { 0 } else { POLYNOMIAL };
    element << 1 ^ carry
}

const fn powers() -> [u8; 2 * ORDER] {
    let mut powers = [1; 2 * ORDER];
    let mut at = 1;
    while at < powers.len() {
        powers[at] = double(powers[at - 1]);
        at += 1;
    }
    powers
}

const fn logarithms() -> [u8; 256] {
    let mut logarithms = [0; 256];
    let mut at = 0;
    while at < ORDER {
        logarithms[POWERS[at] as usize] = at as u8;
        at += 1;
    }
    logarithms
}

const fn nibbles() -> [[u8; 32]; 256] {
    let mut table = [[0; 32]; 256];
    let mut coefficient = 0;
    while coefficient < 256 {
        let mut nibble = 0;
        while nibble < 16 {
            table[coefficient][nibble] = multiply(coefficient as u8, nibble as u8);
            table[coefficient][16 + nibble] = multiply(coefficient as u8, (nibble << 4) as u8);
            nibble += 1;
        }
        coefficient += 1;
    }
    table
}

/// 2 to this power: the coefficient of a column in Q.
pub const fn power_of_two(exponent: u8) -> u8 {
    POWERS[exponent as usize]
}

/// The product.
pub const fn multiply(a: u8, b: u8) -> u8 {
    if a == 0 || b == 0 { 0 } else { POWERS[LOGARITHMS[a as usize] as usize + LOGARITHMS[b as usize] as usize] }
}

/// The quotient.
///
/// # Panics
/// If the divisor is zero.
pub const fn divide(a: u8, b: u8) -> u8 {
    assert!(b != 0, "nothing is divided by zero");
    if a == 0 { 0 } else { POWERS[ORDER + LOGARITHMS[a as usize] as usize - LOGARITHMS[b as usize] as usize] }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The definition: polynomials are multiplied term by term and reduced.
    fn defined(a: u8, b: u8) -> u8 {
        let mut product = 0u16;
        for bit in 0..8 {
            if b & 1 << bit != 0 {
                product ^= u16::from(a) << bit;
            }
        }
        for bit in (8..16).rev() {
            if product & 1 << bit != 0 {
                product ^= 0x11d << (bit - 8);
            }
        }
        product as u8
    }

    #[test]
    fn every_product_and_quotient_agrees_with_the_definition() {
        for a in 0..=255 {
            for b in 0..=255 {
                let product = defined(a, b);
                assert_eq!(multiply(a, b), product, "{a} times {b}");
                if b != 0 {
                    assert_eq!(divide(product, b), a, "{product} by {b}");
                }
                let nibbles = &NIBBLES[usize::from(a)];
                assert_eq!(nibbles[usize::from(b & 15)] ^ nibbles[16 + usize::from(b >> 4)], product);
            }
        }
    }

    #[test]
    fn two_generates_every_element_but_zero() {
        let mut seen = [false; 256];
        let mut power = 1;
        for exponent in 0..255 {
            assert_eq!(power_of_two(exponent), power);
            assert!(power != 0 && !core::mem::replace(&mut seen[usize::from(power)], true), "{power} twice");
            power = defined(power, 2);
        }
        assert_eq!(power, 1);
    }

    #[test]
    #[should_panic(expected = "divided by zero")]
    fn division_by_zero_is_a_broken_invariant() {
        divide(1, 0);
    }
}
