package telemetry

// Key is the name of a log line's field. Tools may depend on these: a key is added, never renamed.
type Key string

const (
	Run       Key = "run"       // the run directory
	Iteration Key = "iteration" // the iteration's number, from 1
	Stage     Key = "stage"     // what an iteration is doing: sample, compare, pair, train, evaluate
	Step      Key = "step"      // the optimizer step's number within the iteration
	Count     Key = "count"     // how many are done
	Total     Key = "total"     // how many there are to do
	Seconds   Key = "seconds"   // how long it took, by the monotonic clock
	Plugin    Key = "plugin"    // a plugin's kind/name, "loss/dpo"
	Version   Key = "version"   // a plugin's version
	PID       Key = "pid"       // a plugin's process
	Attempt   Key = "attempt"   // which start of a plugin in the same call, from 1
	Dropped   Key = "dropped"   // lines of a plugin that were left out, for there were too many
	Path      Key = "path"      // a file or directory
	Address   Key = "address"   // where a server listens
	Model     Key = "model"     // the model's name
	Route     Key = "route"     // the path's pattern that a server was asked for, "POST /v1/completions"
	Status    Key = "status"    // the HTTP status that it answered with; 0: nobody waited for one
	Cause     Key = "error"     // an error's text
)
