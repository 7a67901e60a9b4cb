package host

import (
	"bytes"
	"context"
	"debug/elf"
	"debug/macho"
	"debug/pe"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/dno-project/dno/core/fsx"
	"github.com/dno-project/dno/sdk"
)

// thirdParty puts a plugin's executable into a new directory, under the name that it is found by.
func thirdParty(t testing.TB, kind sdk.Kind, name string) (dir, path, sum string) {
	t.Helper()
	dir = t.TempDir()
	path = filepath.Join(dir, fileName(kind, name))
	in, err := os.Open(os.Args[0])
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	out, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o755)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(out, in); err != nil {
		t.Fatal(err)
	}
	if err := out.Close(); err != nil {
		t.Fatal(err)
	}
	if sum, err = fsx.SumFile(path); err != nil {
		t.Fatal(err)
	}
	return dir, path, sum
}

// refusedParty is as thirdParty, with a file that is never started.
func refusedParty(t *testing.T) (dir, path, sum string) {
	t.Helper()
	dir = t.TempDir()
	path = filepath.Join(dir, fileName(sdk.KindLoss, "good"))
	if err := os.WriteFile(path, []byte("#!/bin/sh\nexit 1\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	sum, err := fsx.SumFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return dir, path, sum
}

func pinned(plugin, sum string) *Lock { return &Lock{Plugins: []Pin{{Plugin: plugin, SHA256: sum}}} }

func TestAThirdPartysPluginRunsFromAVerifiedCopy(t *testing.T) {
	dir, path, sum := thirdParty(t, sdk.KindLoss, "good")
	h, _ := newHost(t, func(o *Options) {
		*o = Options{SearchDirs: []string{filepath.Join(dir, "not-there"), dir}, Lock: pinned("loss/good", sum), Log: o.Log}
	})
	l, running, err := h.Loss(context.Background(), Spec{Name: "good"})
	if err != nil {
		t.Fatal(err)
	}
	if running.Path != path || running.SHA256 != sum {
		t.Errorf("running is %+v", running)
	}
	if got := h.Names(sdk.KindLoss); len(got) != 1 || got[0] != "good" {
		t.Errorf("names are %v", got)
	}
	command := l.(*loss).proc.command.cmd
	private, err := os.Stat(filepath.Dir(command.Path))
	if err != nil || command.Path == path || (runtime.GOOS != "windows" && private.Mode().Perm() != 0o700) {
		t.Errorf("it runs as %s, in a directory %v (%v)", command.Path, private.Mode(), err)
	}

	// The original may change under a running plugin: a restart takes the copy.
	if err := os.WriteFile(path, []byte("#!/bin/sh\nexit 1\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := command.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if out, err := l.Evaluate(context.Background(), pairBatch()); err != nil || out.Loss != 2 {
		t.Fatalf("after the original was replaced: %v, %v", out.Loss, err)
	}

	// The copy may not.
	if err := os.Remove(command.Path); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(command.Path, []byte("#!/bin/sh\nexit 1\n"), 0o500); err != nil {
		t.Fatal(err)
	}
	if err := l.(*loss).proc.command.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Evaluate(context.Background(), pairBatch()); err == nil || !strings.Contains(err.Error(), "its verified copy was changed") {
		t.Errorf("a changed copy gives %v", err)
	}
}

func TestF32ExecutablesThatAreRefused(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("SKIP: modes and links of Unix")
	}
	for name, c := range map[string]struct {
		change func(t *testing.T, dir, path string, lock *Lock) (spec string)
		want   string
		hint   string
	}{
		"one that is not pinned": {func(_ *testing.T, _, _ string, l *Lock) string {
			l.Plugins = nil
			return "good"
		}, "is not pinned in dno.lock", "dno plugin install"},
		"one that is pinned for another kind": {func(_ *testing.T, _, _ string, l *Lock) string {
			l.Plugins[0].Plugin = "oracle/good"
			return "good"
		}, "is not pinned in dno.lock", "dno plugin install"},
		"one with a byte changed": {func(t *testing.T, _, path string, _ *Lock) string {
			f, err := os.OpenFile(path, os.O_RDWR, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			if _, err := f.WriteAt([]byte{'!'}, 15); err != nil {
				t.Fatal(err)
			}
			return "good"
		}, "has the checksum", "was replaced"},
		"one that is not executable": {func(t *testing.T, _, path string, _ *Lock) string {
			chmod(t, path, 0o644)
			return "good"
		}, "is not executable", ""},
		"one that everybody can write": {func(t *testing.T, _, path string, _ *Lock) string {
			chmod(t, path, 0o757)
			return "good"
		}, "can be written by everybody", ""},
		"a link out of the directory": {func(t *testing.T, dir, path string, _ *Lock) string {
			outside := filepath.Join(t.TempDir(), "outside")
			if err := errors.Join(os.Rename(path, outside), os.Symlink(outside, path)); err != nil {
				t.Fatal(err)
			}
			return "good"
		}, "is a link out of its directory", ""},
		"a directory": {func(t *testing.T, dir, path string, _ *Lock) string {
			if err := errors.Join(os.Remove(path), os.Mkdir(path, 0o755)); err != nil {
				t.Fatal(err)
			}
			return "good"
		}, "is no file", ""},
		"a path where nothing is": {func(_ *testing.T, dir, _ string, _ *Lock) string {
			return dir + "/nothing"
		}, "no such file", ""},
		"a path that is not pinned": {func(_ *testing.T, _, path string, _ *Lock) string {
			return path
		}, "is not pinned in dno.lock", "dno plugin install"},
		"a text without an interpreter": {func(t *testing.T, _, path string, l *Lock) string {
			return replaced(t, path, l, "print('hello')\n")
		}, "is no program: it has neither", ""},
		"a script whose interpreter is not there": {func(t *testing.T, _, path string, l *Lock) string {
			return replaced(t, path, l, "#!/nowhere/python3\n")
		}, "no such file", "interpreter"},
		"an empty file": {func(t *testing.T, _, path string, l *Lock) string {
			return replaced(t, path, l, "")
		}, "is empty", ""},
		"F32 a program for another machine": {func(t *testing.T, _, path string, l *Lock) string {
			other := map[bool]elf.Machine{true: elf.EM_AARCH64, false: elf.EM_X86_64}[runtime.GOARCH == "amd64"]
			return replaced(t, path, l, string(elfProgram(t, other)))
		}, "is a program for ", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir, path, sum := refusedParty(t)
			lock := pinned("loss/good", sum)
			spec := c.change(t, dir, path, lock)
			h, _ := newHost(t, func(o *Options) { *o = Options{SearchDirs: []string{dir}, Lock: lock} })
			_, _, err := h.Loss(context.Background(), Spec{Name: spec})
			if sdk.CodeOf(err) != sdk.CodePlugin || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("want %q, have %v", c.want, err)
			}
			var e *sdk.Error
			if c.hint != "" && (!errors.As(err, &e) || !strings.Contains(e.Hint, c.hint)) {
				t.Errorf("want the hint %q, have %+v", c.hint, e)
			}
		})
	}
}

// The first bytes of programs for other systems, as far as they are read.
func TestF32ProgramsSayWhatTheyAreFor(t *testing.T) {
	machO := binary.LittleEndian.AppendUint32(nil, macho.Magic64)
	machO = binary.LittleEndian.AppendUint32(machO, uint32(macho.CpuArm64))
	machO = append(machO, make([]byte, 24)...)                                       // no commands
	portable := binary.LittleEndian.AppendUint16(nil, pe.IMAGE_FILE_MACHINE_ARM64)   // as without the DOS part
	portable = append(append(portable, make([]byte, 18)...), make([]byte, 1<<10)...) // no sections
	mips := elfProgram(t, elf.EM_MIPS)
	for name, c := range map[string]struct {
		data            []byte
		system, machine string
	}{
		"Mach-O":          {machO, "macOS", "arm64"},
		"PE":              {portable, "Windows", "arm64"},
		"ELF":             {mips, "Linux or another Unix", "machine EM_MIPS"},
		"ELF that is cut": {mips[:20], "Linux or another Unix", ""},
		"a text":          {[]byte("print('hello')\n"), "", ""},
		"nothing":         {nil, "", ""},
	} {
		if system, machine := platform(bytes.NewReader(c.data)); system != c.system || machine != c.machine {
			t.Errorf("%s: have %q, %q; want %q, %q", name, system, machine, c.system, c.machine)
		}
	}
	if system, machine := ownPlatform(); system == "" || !strings.Contains(machine, runtime.GOARCH) {
		t.Errorf("this program is for %q, %q", system, machine)
	}
}

// elfProgram is the header of a program in ELF, without the program.
func elfProgram(t *testing.T, machine elf.Machine) []byte {
	t.Helper()
	header := elf.Header64{Type: uint16(elf.ET_EXEC), Machine: uint16(machine), Version: 1, Ehsize: 64}
	copy(header.Ident[:], elf.ELFMAG)
	header.Ident[elf.EI_CLASS], header.Ident[elf.EI_DATA], header.Ident[elf.EI_VERSION] = byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), 1
	var file bytes.Buffer
	if err := binary.Write(&file, binary.LittleEndian, header); err != nil {
		t.Fatal(err)
	}
	return file.Bytes()
}

// replaced puts another content into a pinned plugin, and pins it.
func replaced(t *testing.T, path string, l *Lock, content string) string {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o755); err != nil {
		t.Fatal(err)
	}
	sum, err := fsx.SumFile(path)
	if err != nil {
		t.Fatal(err)
	}
	l.Plugins[0].SHA256 = sum
	return "good"
}

func chmod(t *testing.T, path string, mode os.FileMode) {
	t.Helper()
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
}

func TestAPluginByItsPath(t *testing.T) {
	_, path, sum := thirdParty(t, sdk.KindLoss, "good")
	h, _ := newHost(t, func(o *Options) { o.Lock = pinned("loss/"+path, sum) })
	l, running, err := h.Loss(context.Background(), Spec{Name: path})
	if err != nil {
		t.Fatal(err)
	}
	if running.Name != "good" || running.Path != path || l.Manifest().Name != "good" {
		t.Errorf("running is %+v", running)
	}
}

func TestMissingPluginsSayWhatThereIs(t *testing.T) {
	dir := t.TempDir()
	h, _ := newHost(t, func(o *Options) { *o = Options{SearchDirs: []string{dir}} })
	_, _, err := h.Oracle(context.Background(), Spec{Name: "weather"})
	var e *sdk.Error
	if !errors.As(err, &e) || e.Error() != `there is no oracle "weather"; there is none at all` ||
		!strings.Contains(e.Hint, fileName(sdk.KindOracle, "weather")+" in "+dir) {
		t.Errorf("have %v, hint %q", err, e.Hint)
	}
}
