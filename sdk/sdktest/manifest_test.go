package sdktest

import (
	"testing"

	"github.com/dno-project/dno/sdk"
)

// The host takes c out of a loss's table: a loss would never see a setting of that name.
func TestTheNameCIsTheHostsInALossAlone(t *testing.T) {
	m := betaManifest()
	m.Kind = sdk.KindLoss
	m.Settings[0].Name = "c"
	r := newRecorder()
	checkManifest(r, m)
	r.wants(t, `"c": this name is the host's`)

	m.Kind, m.Oracle.Form = sdk.KindOracle, sdk.FormPairwise
	checkManifest(t, m)
}
