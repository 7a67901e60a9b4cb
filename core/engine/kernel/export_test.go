package kernel

// SetLevel switches the level for a test; restore switches back.
func SetLevel(name string) (restore func()) {
	old := level
	for _, l := range detect() {
		if l.String() == name {
			level = l
			return func() { level = old }
		}
	}
	panic("this CPU has no level " + name)
}
