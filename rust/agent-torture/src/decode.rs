//! What an x86-64 instruction may change, judged by its first bytes.
//!
//! A walk compares the segment with what it was only after instructions that may have changed it. Only what is *known* to
//! write no memory, or only to the stack, is skipped; whatever is not in the table counts as a write. So a gap in the
//! table costs time and misses nothing. Files and names change by system calls only, and those are in the table.

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// Registers, flags, and what `push` and `call` put on the stack.
    Nothing,
    MayWrite,
    /// Anything: also files, their names and sizes.
    SystemCall,
}

/// Of the eight bytes at the instruction pointer.
pub fn effect(bytes: [u8; 8]) -> Effect {
    use Effect::*;
    let mut at = 0;
    // Sizes, repeats and segments; with LOCK an instruction writes.
    while at < 3 && matches!(bytes[at], 0x66 | 0xf2 | 0xf3 | 0x2e | 0x3e | 0x64 | 0x65) {
        at += 1;
    }
    if bytes[at] & 0xf0 == 0x40 {
        at += 1;
    }
    let (opcode, next) = (bytes[at], bytes[at + 1]);
    match opcode {
        0x0f => two_bytes(next, bytes[at + 2]),
        // int n
        0xcd => SystemCall,
        // The arithmetic of accumulators and of registers from memory: add, or, adc, sbb, and, sub, xor, cmp.
        0x00..=0x3f if matches!(opcode & 7, 2..=5) => Nothing,
        // cmp with memory
        0x38 | 0x39 => Nothing,
        // push and pop of registers, push of numbers
        0x50..=0x5f | 0x68 | 0x6a => Nothing,
        // movsxd, imul
        0x63 | 0x69 | 0x6b => Nothing,
        // Jumps, calls, returns; loop; nop, sign extensions, leave.
        0x70..=0x7f
        | 0xe0..=0xe3
        | 0xe8
        | 0xe9
        | 0xeb
        | 0xc2
        | 0xc3
        | 0x90
        | 0x98
        | 0x99
        | 0xc9 => Nothing,
        // test, loads, lea, moves of numbers into registers
        0x84 | 0x85 | 0xa8 | 0xa9 | 0x8a | 0x8b | 0x8d | 0xb0..=0xbf => Nothing,
        // cmp of a number; test of a number; calls, jumps and pushes through memory
        0x80 | 0x81 | 0x83 if register_field(next) == 7 => Nothing,
        0xf6 | 0xf7 if register_field(next) != 2 && register_field(next) != 3 => Nothing,
        0xff if matches!(register_field(next), 2 | 4 | 6) => Nothing,
        // Whatever else works on one operand writes memory only when that operand is memory.
        0x00..=0x3f if opcode & 7 < 2 => on_registers(next),
        0x80 | 0x81 | 0x83 | 0x86..=0x89 | 0xc0 | 0xc1 | 0xc6 | 0xc7 => on_registers(next),
        0xd0..=0xd3 | 0xf6 | 0xf7 | 0xfe | 0xff => on_registers(next),
        _ => MayWrite,
    }
}

fn two_bytes(opcode: u8, next: u8) -> Effect {
    match opcode {
        // syscall, sysenter
        0x05 | 0x34 => Effect::SystemCall,
        // Loads into vector registers, conversions, comparisons, arithmetic of vectors
        0x10 | 0x12 | 0x14..=0x16 | 0x28 | 0x2a | 0x2c..=0x2f => Effect::Nothing,
        0x51..=0x6f
        | 0x70
        | 0x74..=0x76
        | 0xc2
        | 0xc6
        | 0xd4..=0xd5
        | 0xdb
        | 0xdf
        | 0xeb
        | 0xef => Effect::Nothing,
        // endbr, nop, cmov, jumps, cpuid, bt, imul, movzx, bsf, bsr, movsx
        0x1e | 0x1f | 0x40..=0x4f | 0x80..=0x8f | 0xa2 | 0xa3 | 0xaf => Effect::Nothing,
        0xb6..=0xb8 | 0xbc..=0xbf => Effect::Nothing,
        // set
        0x90..=0x9f => on_registers(next),
        _ => Effect::MayWrite,
    }
}

fn register_field(modrm: u8) -> u8 {
    modrm >> 3 & 7
}

fn on_registers(modrm: u8) -> Effect {
    if modrm >> 6 == 3 {
        Effect::Nothing
    } else {
        Effect::MayWrite
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(bytes: &[u8]) -> Effect {
        let mut eight = [0x90; 8];
        eight[..bytes.len()].copy_from_slice(bytes);
        effect(eight)
    }

    #[test]
    fn whatever_writes_memory_is_looked_at() {
        for (name, bytes) in [
            ("mov [rdi], rax", &[0x48, 0x89, 0x07][..]),
            ("mov [rdi], al", &[0x88, 0x07]),
            ("mov qword [rdi], 1", &[0x48, 0xc7, 0x07, 1, 0, 0, 0]),
            ("lock cmpxchg [rdi], rcx", &[0xf0, 0x48, 0x0f, 0xb1, 0x0f]),
            ("lock cmpxchg16b [rdi]", &[0xf0, 0x48, 0x0f, 0xc7, 0x0f]),
            ("lock xadd [rdi], rax", &[0xf0, 0x48, 0x0f, 0xc1, 0x07]),
            ("lock add [rdi], 1", &[0xf0, 0x48, 0x83, 0x07, 0x01]),
            ("lock or [rdi], rax", &[0xf0, 0x48, 0x09, 0x07]),
            ("xchg [rdi], rax", &[0x48, 0x87, 0x07]),
            ("add [rdi], rax", &[0x48, 0x01, 0x07]),
            ("not qword [rdi]", &[0x48, 0xf7, 0x17]),
            ("neg qword [rdi]", &[0x48, 0xf7, 0x1f]),
            ("inc qword [rdi]", &[0x48, 0xff, 0x07]),
            ("shl qword [rdi], 3", &[0x48, 0xc1, 0x27, 3]),
            ("movups [rdi], xmm0", &[0x0f, 0x11, 0x07]),
            ("movdqa [rdi], xmm0", &[0x66, 0x0f, 0x7f, 0x07]),
            ("movq [rdi], xmm0", &[0x66, 0x0f, 0xd6, 0x07]),
            ("movnti [rdi], rax", &[0x48, 0x0f, 0xc3, 0x07]),
            ("vmovdqu [rdi], ymm0", &[0xc5, 0xfe, 0x7f, 0x07]),
            ("evex", &[0x62, 0xf1, 0xfe, 0x28, 0x7f, 0x07]),
            ("rep stosq", &[0xf3, 0x48, 0xab]),
            ("rep movsb", &[0xf3, 0xa4]),
            ("sete [rdi]", &[0x0f, 0x94, 0x07]),
            ("bts [rdi], rax", &[0x48, 0x0f, 0xab, 0x07]),
            ("pop qword [rdi]", &[0x8f, 0x07]),
            ("xsave [rdi]", &[0x0f, 0xae, 0x27]),
        ] {
            assert_eq!(of(bytes), Effect::MayWrite, "{name}");
        }
    }

    #[test]
    fn system_calls_are_told() {
        assert_eq!(of(&[0x0f, 0x05]), Effect::SystemCall);
        assert_eq!(of(&[0xcd, 0x80]), Effect::SystemCall);
    }

    #[test]
    fn what_only_reads_is_skipped() {
        for (name, bytes) in [
            ("mov rax, [rdi]", &[0x48, 0x8b, 0x07][..]),
            ("mov rax, rdi", &[0x48, 0x89, 0xf8]),
            ("cmp [rdi], rax", &[0x48, 0x39, 0x07]),
            ("cmp qword [rdi], 1", &[0x48, 0x83, 0x3f, 0x01]),
            ("test al, al", &[0x84, 0xc0]),
            ("lea rax, [rdi]", &[0x48, 0x8d, 0x07]),
            ("je", &[0x74, 0x05]),
            ("call", &[0xe8, 0, 0, 0, 0]),
            ("movups xmm0, [rdi]", &[0x0f, 0x10, 0x07]),
            ("sete al", &[0x0f, 0x94, 0xc0]),
            ("endbr64", &[0xf3, 0x0f, 0x1e, 0xfa]),
        ] {
            assert_eq!(of(bytes), Effect::Nothing, "{name}");
        }
    }
}
