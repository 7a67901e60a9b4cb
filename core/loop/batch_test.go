package loop

import (
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"
)

func TestBatchesPassOverEveryUnitOnce(t *testing.T) {
	var units []unit
	for game, n := range []int{3, 1, 4, 1, 5, 9, 2, 6} {
		for range n {
			units = append(units, unit{game: game})
		}
	}
	deal := func(seed uint64, byPrompt bool) [][]int {
		return inBatches(rand.New(rand.NewPCG(seed, 1)), units, 4, byPrompt)
	}
	for _, byPrompt := range []bool{true, false} {
		batches := deal(1, byPrompt)
		all := slices.Concat(batches...)
		split := 0 // neighbours of different prompts
		for i := range all[1:] {
			if units[all[i]].game != units[all[i+1]].game {
				split++
			}
		}
		if (split == 7) != byPrompt {
			t.Errorf("by prompt is %v, and prompts change %d times in %v", byPrompt, split, batches)
		}
		slices.Sort(all)
		for i := range all {
			if all[i] != i {
				t.Fatalf("by prompt %v: batches %v do not pass over each unit once", byPrompt, batches)
			}
		}
		if len(batches) != 8 || len(batches[7]) != 3 {
			t.Errorf("by prompt %v: %d batches", byPrompt, len(batches))
		}
		if reflect.DeepEqual(batches, deal(2, byPrompt)) || !reflect.DeepEqual(batches, deal(1, byPrompt)) {
			t.Errorf("by prompt %v: the order does not follow from the seed", byPrompt)
		}
	}
}
