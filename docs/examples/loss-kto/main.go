// Command dno-loss-kto serves the loss to dno.
package main

import "github.com/dno-project/dno/sdk/serve"

func main() { serve.Loss(New()) }
