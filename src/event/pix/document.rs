//! CPF and CNPJ: the numbers of persons and companies, and their check digits.
//!
//! A CPF has 11 digits. A CNPJ has 12 digits or capital letters and two check digits; letters are allowed since July
//! 2026 (Instrução Normativa RFB 2.229/2024), and count as their ASCII code minus 48, which for digits is their value.

/// Whether a text has the form of a CPF or CNPJ.
pub fn is_document(text: &str) -> bool {
    let bytes = text.as_bytes();
    match bytes.len() {
        11 => bytes.iter().all(u8::is_ascii_digit),
        14 => {
            let (base, check) = bytes.split_at(12);
            base.iter()
                .all(|b| b.is_ascii_digit() || b.is_ascii_uppercase())
                && check.iter().all(u8::is_ascii_digit)
        }
        _ => false,
    }
}

/// Whether the check digits of a CPF or CNPJ are right. A CPF of one repeated digit is not one, although they are.
pub fn has_right_digits(text: &str) -> bool {
    let Some(base) = text.len().checked_sub(2).and_then(|end| text.get(..end)) else {
        return false;
    };
    let repeated = text.len() == 11 && text.bytes().all(|b| text.as_bytes().first() == Some(&b));
    is_document(text) && !repeated && with_check_digits(base) == text
}

/// Adds the two check digits to the first 9 digits of a CPF, or to the first 12 characters of a CNPJ.
pub fn with_check_digits(base: &str) -> String {
    let mut number = base.to_owned();
    for _ in 0..2 {
        // Weights from the right: 2, 3, ... without end for a CPF, and up to 9 and again from 2 for a CNPJ.
        let cycle = if base.len() == 9 { u32::MAX } else { 8 };
        let sum: u32 = (0..)
            .zip(number.bytes().rev())
            .map(|(place, byte): (u32, u8)| {
                u32::from(byte.saturating_sub(b'0')) * (2 + place % cycle)
            })
            .sum();
        let digit = match sum % 11 {
            0 | 1 => 0,
            rest => 11 - rest,
        };
        number.push(char::from_digit(digit, 10).unwrap_or('0'));
    }
    number
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Known valid numbers: published examples of the Receita Federal, the last one with letters.
    #[test]
    fn check_digits_of_known_numbers_are_right() {
        for known in ["52998224725", "11444777000161", "12ABC34501DE35"] {
            assert!(has_right_digits(known), "{known}");
        }
    }

    #[test]
    fn wrong_digits_and_forms_are_told_apart() {
        assert!(is_document("98716278190") && !has_right_digits("98716278190"));
        assert!(!has_right_digits("11111111111"));
        for text in [
            "",
            "1",
            "5299822472a",
            "52998224725 ",
            "12abc34501DE35",
            "12ABC34501DEX5",
        ] {
            assert!(!is_document(text) && !has_right_digits(text), "{text}");
        }
    }
}
