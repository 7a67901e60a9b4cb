package host

import (
	"debug/elf"
	"debug/macho"
	"debug/pe"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"sync"
)

// runnable says what keeps a file from being run on this machine, from its first bytes. Without
// this the system says "exec format error", or that a file is missing which is there.
//
// The copy is what is looked at, and path what the user knows.
func runnable(copied, path string) error {
	f, err := os.Open(copied)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	first := make([]byte, 4)
	n, err := io.ReadFull(f, first)
	switch {
	case n == 0 && errors.Is(err, io.EOF):
		return fmt.Errorf("%s is empty", path)
	case err != nil && !errors.Is(err, io.ErrUnexpectedEOF):
		return err
	case string(first[:2]) == "#!":
		return nil
	}
	system, machine := platform(f)
	ourSystem, ourMachine := ownPlatform()
	switch {
	case system == "":
		return fmt.Errorf("%s is no program: it has neither a program's header nor, as a script needs, a first line like #!/bin/sh", path)
	case system != ourSystem && ourSystem != "":
		return fmt.Errorf("%s is a program for %s, this is %s/%s: build it for this system", path, system, runtime.GOOS, runtime.GOARCH)
	case machine != ourMachine && machine != "" && ourMachine != "":
		return fmt.Errorf("%s is a program for %s, this machine is %s: build it for this machine", path, machine, runtime.GOARCH)
	}
	return nil
}

// ownPlatform is the platform of this program itself, which runs here; "" where it cannot be read.
var ownPlatform = sync.OnceValues(func() (system, machine string) {
	path, err := os.Executable()
	if err != nil {
		return "", ""
	}
	f, err := os.Open(path)
	if err != nil {
		return "", ""
	}
	defer func() { _ = f.Close() }()
	return platform(f)
})

// platform reads from a program's header which system and machine it is for: no system where it is no
// program, no machine where it is for several, or the header cannot be read to its end.
func platform(f io.ReaderAt) (system, machine string) {
	const unixes = "Linux or another Unix"
	if x, err := elf.NewFile(f); err == nil {
		return unixes, named(map[elf.Machine]string{
			elf.EM_X86_64: "amd64", elf.EM_AARCH64: "arm64", elf.EM_386: "386", elf.EM_ARM: "arm", elf.EM_RISCV: "riscv64",
			elf.EM_PPC64: "ppc64", elf.EM_S390: "s390x", elf.EM_LOONGARCH: "loong64",
		}, x.Machine)
	}
	if x, err := macho.NewFile(f); err == nil {
		return "macOS", named(map[macho.Cpu]string{macho.CpuAmd64: "amd64", macho.CpuArm64: "arm64"}, x.Cpu)
	}
	if _, err := macho.NewFatFile(f); err == nil {
		return "macOS", ""
	}
	if x, err := pe.NewFile(f); err == nil {
		return "Windows", named(map[uint16]string{
			pe.IMAGE_FILE_MACHINE_AMD64: "amd64", pe.IMAGE_FILE_MACHINE_ARM64: "arm64", pe.IMAGE_FILE_MACHINE_I386: "386",
		}, x.Machine)
	}
	magic := make([]byte, len(elf.ELFMAG))
	if _, err := f.ReadAt(magic, 0); err == nil && string(magic) == elf.ELFMAG {
		return unixes, "" // packed, perhaps
	}
	return "", ""
}

func named[K comparable](names map[K]string, key K) string {
	if name, ok := names[key]; ok {
		return name
	}
	return fmt.Sprintf("machine %v", key)
}
